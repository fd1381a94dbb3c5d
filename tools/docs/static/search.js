// From the file system a page cannot read another one, so results show what each page says of itself instead of the words around a hit.
if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  document.addEventListener("DOMContentLoaded", () => {
    const results = document.getElementById("search-results");
    if (!results) return;
    new MutationObserver((changes) => {
      for (const change of changes) for (const node of change.addedNodes) {
        const link = node.tagName === "LI" && node.querySelector("a");
        if (!link || node.querySelector("p.context") || node.querySelector("span")) continue;
        const line = SUMMARIES[link.getAttribute("href").replace(/[?#].*$/, "").replace(/\.html$/, "")];
        if (!line) continue;
        const text = document.createElement("p");
        text.className = "context";
        text.textContent = line;
        node.appendChild(text);
      }
    }).observe(results, {childList: true, subtree: true});
  });
}
