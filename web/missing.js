// What a workflow names and this machine lacks is told when it is opened, before Run: ComfyUI's own list of missing models
// knows files by their ending, and MOVA is a folder; files that were converted here have no address.
import { app } from "../../scripts/app.js";

const WORDS = {
  en: {
    title: "MOVA: not here yet",
    folder: (name, from) => `${name} belongs in models/diffusers (73 GiB), from ${from}`,
    command: (name) => `hf download OpenMOSS-Team/${name} --local-dir models/diffusers/${name}`,
    file: (name) => `${name}: converted from the folder, in the folder of this pack: python -m mova_core.checkpoint.convert`,
    unknown: (name) => `${name}: choose another one, or put it there`,
    after: "Then press R.",
  },
  zh: {
    title: "MOVA：这里还没有",
    folder: (name, from) => `${name} 放入 models/diffusers（73 GiB），来自 ${from}`,
    command: (name) => `hf download OpenMOSS-Team/${name} --local-dir models/diffusers/${name}`,
    file: (name) => `${name}：由该文件夹转换而来，在本包的文件夹中运行 python -m mova_core.checkpoint.convert`,
    unknown: (name) => `${name}：请另选一个，或把它放好`,
    after: "然后按 R。",
  },
};
const CHOSEN = {
  MOVALoader: ["folder"],
  MOVAModelLoader: ["high_noise", "low_noise", "shared", "bridge"],
  MOVAAudioVAELoader: ["vae_file"],
};
let takeAway = () => {}; // the message that is shown

function* nodesOf(graph) {
  for (const node of graph?.nodes ?? graph?._nodes ?? []) {
    yield node;
    yield* nodesOf(node.subgraph);
  }
}

// Names that widgets of our loaders hold and do not offer: [node, name].
function lacking() {
  const found = [];
  for (const node of nodesOf(app.graph)) {
    for (const name of CHOSEN[node.comfyClass] ?? []) {
      const widget = node.widgets?.find((each) => each.name === name);
      const linked = node.inputs?.find((slot) => slot.widget?.name === name)?.link != null;
      const values = widget?.options?.values;
      const offered = typeof values === "function" ? values(widget, node) : values;
      if (widget?.value && !linked && Array.isArray(offered) && !offered.includes(widget.value)) {
        found.push([node, widget.value]);
      }
    }
  }
  return found;
}

function lines(node, name, words) {
  const address = node.properties?.models?.find((model) => model.name === name)?.url;
  if (node.comfyClass === "MOVALoader") {
    const ours = address?.startsWith("https://huggingface.co/OpenMOSS-Team/");
    return ours ? [words.folder(name, address), words.command(name)] : [words.unknown(name)];
  }
  return address ? [`${name}: ${address}`] : [/_(high_noise|low_noise|shared|audio_vae|merged)/.test(name) ? words.file(name) : words.unknown(name)];
}

// Shows a message until it is closed; gives what takes it away. Frontends from 1.58 on have warning and dismiss.
function show(toast, summary, detail) {
  if (toast.warning && toast.dismiss) {
    const id = toast.warning(summary, { description: detail, duration: Infinity, closable: true });
    return () => toast.dismiss(id);
  }
  const message = { severity: "warn", summary, detail };
  toast.add(message);
  return () => toast.remove(message);
}

function tell() {
  const toast = app.extensionManager?.toast;
  if (!toast) return;
  takeAway();
  takeAway = () => {};
  const found = lacking();
  if (!found.length) return;
  const words = app.extensionManager.setting?.get("Comfy.Locale")?.startsWith("zh") ? WORDS.zh : WORDS.en;
  const detail = [...new Set(found.flatMap(([node, name]) => lines(node, name, words))), words.after].join("\n");
  takeAway = show(toast, words.title, detail);
}

app.registerExtension({
  name: "mova.missing",
  afterConfigureGraph: tell,
  refreshComboInNodes: tell, // after R
});
