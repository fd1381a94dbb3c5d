// Draw every chart of the page from the data beside it.
delete document.head.appendChild;
const narrow = window.innerWidth < 600;
for (const holder of document.querySelectorAll("div.plot")) {
  const figure = JSON.parse(holder.nextElementSibling.textContent);
  const layout = Object.assign({}, figure.layout, {autosize: true});
  if (narrow) {
    layout.margin = Object.assign({}, layout.margin, {l: 48, r: 12});
    layout.legend = Object.assign({}, layout.legend, {orientation: "h", x: 0, y: -0.2, xanchor: "left", yanchor: "top"});
  }
  holder.textContent = "";
  Plotly.newPlot(holder, {data: figure.data, layout: layout, frames: figure.frames, config: {responsive: true, displaylogo: false}});
}
