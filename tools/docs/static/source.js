// A fold of the reference shows the cell of the lesson below it: the source stands on the page once.
document.addEventListener("toggle", (event) => {
  const fold = event.target;
  if (!fold.open || !fold.classList.contains("source") || fold.querySelector(".highlight")) return;
  const code = document.querySelector(`#${fold.dataset.cell} .cell_input .highlight`);
  if (code) fold.insertBefore(code.cloneNode(true), fold.lastElementChild);
}, true);
