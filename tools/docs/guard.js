document.head.appendChild = function (n) { return n.tagName === "LINK" ? n : Node.prototype.appendChild.call(this, n); };
