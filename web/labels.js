// The text boxes of our nodes say what they are, where the canvas draws them; Nodes 2.0 does that by itself.
import { app } from "../../scripts/app.js";

function show(box, name) {
  const words = name.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);
  const text = `<text x="4" y="11" font-family="sans-serif" font-size="10" fill="#8fa3b8">${words}</text>`;
  const picture = `<svg xmlns="http://www.w3.org/2000/svg" width="400" height="15">${text}</svg>`;
  box.style.backgroundImage = `url("data:image/svg+xml,${encodeURIComponent(picture)}")`;
  box.style.backgroundRepeat = "no-repeat";
  box.style.paddingTop = "15px";
  box.placeholder = "";
}

app.registerExtension({
  name: "mova.labels",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("MOVA")) return;
    for (const widget of node.widgets ?? []) {
      if (widget.element?.tagName === "TEXTAREA") show(widget.element, widget.label ?? widget.name);
    }
  },
});
