"""The JavaScript that `browser.py` runs in ComfyUI's page (frontend 1.49).

`app`, `LiteGraph` and `LGraphGroup` are the page's public globals. Its stores are private: each is asked for
optionally, so that another frontend gives an emptier report and not an error.
"""

READY = "Boolean(window.app?.vueAppReady && app.graph && window.LiteGraph?.registered_node_types?.KSampler)"

STORE = """
  const pinia = document.querySelector('#vue-app')?.__vue_app__?.config.globalProperties.$pinia;
  const store = (name) => pinia?._s.get(name);
"""
REPORT = (
    "(() => {"
    + STORE
    + """
  const nodes = app.graph._nodes;
  const known = LiteGraph.registered_node_types;
  const named = (node) => `${node.id} ${node.type}`;
  const unlinked = (node) => (node.inputs ?? []).filter((slot) => {
    const link = slot.link == null ? null : app.graph.getLink(slot.link);
    return slot.link != null && !(link && app.graph.getNodeById(link.origin_id));
  });
  const overlay = document.querySelector('[data-testid="error-overlay"]');
  return {
    nodes: nodes.length,
    missing_types: [...new Set(nodes.filter((n) => !(n.type in known)).map((n) => n.type))],
    red_nodes: nodes.filter((n) => n.has_errors).map(named),
    broken_links: nodes.flatMap((n) => unlinked(n).map((slot) => `${named(n)}.${slot.name}`)),
    missing_models: (store('missingModel')?.missingModelCandidates ?? []).map((m) => m.name ?? String(m)),
    missing_media: (store('missingMedia')?.missingMediaCandidates ?? []).map((m) => m.name ?? String(m)),
    node_errors: JSON.parse(JSON.stringify(store('executionError')?.lastNodeErrors ?? {})),
    prompt_error: JSON.parse(JSON.stringify(store('executionError')?.lastPromptError ?? null)),
    dialogs: (store('dialog')?.dialogStack ?? []).map((d) => d.key),
    toasts: [...document.querySelectorAll('.p-toast-message')].map((toast) => toast.innerText),
    overlay: overlay?.innerText ?? '',
  };
})()"""
)
CLOSE_DIALOGS = (
    "(() => {" + STORE + "for (const d of [...(store('dialog')?.dialogStack ?? [])]) store('dialog').closeDialog(d);"
    "store('rightSidePanel')?.closePanel?.();"  # it hides what it lies on, the player of a finished clip for one
    "const bar = store('sidebarTab'); if (bar?.activeSidebarTabId) bar.toggleSidebarTab(bar.activeSidebarTabId); })()"
)
WATCH = """
new Promise((resolve) => {
  const run = (window.__run = {status: '', message: '', node: null, previews: 0, prompt_id: null});
  const ends = {execution_success: 'success', execution_error: 'error', execution_interrupted: 'interrupted'};
  for (const [kind, status] of Object.entries(ends)) {
    app.api.addEventListener(kind, ({detail}) => {
      if (run.status) return;
      const {exception_message: message = '', node_id: node = null, prompt_id} = detail;
      Object.assign(run, {status, message: message.trim(), node, prompt_id});
    }, {once: true});
  }
  app.api.addEventListener('b_preview', () => { run.previews += 1; });
  const refuse = (message) => Object.assign(run, {status: 'refused', message});
  app.queuePrompt(0)
    .then((accepted) => accepted || refuse('the page or the server refused the graph, see the report'))
    .catch((error) => refuse(String(error)))
    .finally(() => resolve(true));
})"""
CLOSE_OTHER_TABS = (
    "(async () => {"
    + STORE
    + """
  const workflows = store('workflow');
  const others = (workflows?.openWorkflows ?? []).filter((each) => each !== workflows.activeWorkflow);
  for (const other of others) await workflows.closeWorkflow(other);
  return true;
})()"""
)
# Heights of the nodes as Vue draws them, badges and outlines included.
VUE_HEIGHTS = """
Object.fromEntries([...document.querySelectorAll('[data-node-id]')].map((node) => {
  const all = [node, ...node.querySelectorAll('*')].map((each) => each.getBoundingClientRect());
  const seen = all.filter((box) => box.width > 2 && box.height > 2);
  const top = Math.min(...seen.map((box) => box.top)), bottom = Math.max(...seen.map((box) => box.bottom));
  return [node.dataset.nodeId, (bottom - top) / app.canvas.ds.scale];
}))"""
NODE_BOXES = """
app.graph._nodes.map((node) => {
  const box = node.getBounding();
  return {id: String(node.id), type: node.type, box: [box[0], box[1], box[2], box[3]]};
})"""
PLACE = """
(layout) => {
  for (const [id, [x, y]] of Object.entries(layout.positions)) {
    const node = app.graph.getNodeById(Number.isNaN(Number(id)) ? id : Number(id));
    if (!node) throw new Error(`the layout places node ${id}, which the graph does not have`);
    node.pos = [x, y];
  }
  const each = (table, change) => {
    for (const [id, value] of Object.entries(table)) {
      const node = app.graph.getNodeById(Number.isNaN(Number(id)) ? id : Number(id));
      if (!node) throw new Error(`the layout names node ${id}, which the graph does not have`);
      change(node, value);
    }
  };
  each(layout.sizes, (node, size) => node.setSize(size));
  each(layout.titles, (node, title) => { node.title = title; });
  each(layout.colors, (node, color) => { node.color = color[0]; node.bgcolor = color[1]; });
  each(layout.properties, (node, properties) => { Object.assign(node.properties, properties); });
  each(layout.labels, (node, labels) => {
    for (const [name, label] of Object.entries(labels)) {
      const widget = node.widgets.find((one) => one.name === name);
      if (!widget) throw new Error(`${node.type} has no widget ${name}`);
      widget.label = label;
      const slot = node.inputs.find((one) => one.widget?.name === name);
      if (slot) slot.label = label;
    }
  });
  for (const id of layout.unfolded) app.graph.getNodeById(Number(id)).showAdvanced = true;
  for (const node of app.graph._nodes) {
    for (const widget of node.widgets ?? []) {
      if (widget.name === 'control_after_generate') widget.value = layout.after_generate;
    }
  }
  for (const note of layout.notes) {
    const node = LiteGraph.createNode('MarkdownNote');
    app.graph.add(node);
    node.pos = note.position;
    node.setSize(note.size);
    node.title = note.title;
    node.widgets[0].value = note.text;
    node.color = '#432';
    node.bgcolor = '#000';
  }
}"""
ADD_GROUPS = """
(groups) => groups.forEach((group) => {
  const box = new LGraphGroup(group.title);
  box.pos = group.box.slice(0, 2);
  box.size = group.box.slice(2);
  box.color = group.color;
  app.graph.add(box);
})"""
CONVERT_TO_SUBGRAPH = """
(name, outside, knobs, renamed) => {
  const graph = app.graph;
  const notes = graph._nodes.filter((node) => node.type === 'MarkdownNote');
  const left = graph._groups.filter((group) => group.title === 'Outside');
  for (const item of [...notes, ...left]) graph.remove(item);
  const sources = new Map(graph._nodes.map((node) => [String(node.id), node.type + '|' + node.title]));
  const inside = graph._nodes.filter((node) => !outside.includes(String(node.id)));
  const {subgraph, node} = graph.convertToSubgraph(new Set([...inside, ...graph._groups]));
  subgraph.name = node.title = name;
  for (const slot of [...subgraph.inputs]) {
    // The page promotes some widgets (seeds) by itself; here all of them come in the order of `knobs`.
    if (node.inputs.some((input) => input._subgraphSlot === slot && input.link == null)) subgraph.removeInput(slot);
    else if (renamed[slot.name]) subgraph.renameInput(slot, renamed[slot.name]);
  }
  const made = new Map();
  for (const [id, widgetName, called] of knobs) {
    const found = subgraph._nodes.filter((each) => each.type + '|' + each.title === sources.get(id));
    const widget = found[0]?.widgets?.find((each) => each.name === widgetName);
    const slot = widget && found[0].getSlotFromWidget(widget);
    if (found.length !== 1 || !slot) throw new Error(`no single widget ${widgetName} of ${sources.get(id)}`);
    if (!made.has(called)) made.set(called, subgraph.addInput(called, String(slot.type)));
    if (!made.get(called).connect(slot, found[0])) throw new Error(`${called} does not take ${widgetName}`);
  }
  for (const id of outside) graph.remove(graph.getNodeById(Number(id)));
  node.pos = [0, 0];
  node.expandToFitContent?.();
  node.setSize([400, node.size[1]]);
  const {nodes, subgraphs} = app.canvas._serializeItems([node]);
  return JSON.parse(JSON.stringify({
    revision: 0, last_node_id: nodes[0].id, last_link_id: 0, nodes, links: [], version: 0.4,
    definitions: {subgraphs}, extra: {},
  }));
}"""
SUBGRAPH_TROUBLE = """
(() => {
  const trouble = [];
  for (const host of app.graph._nodes.filter((node) => node.subgraph)) {
    for (const node of host.subgraph._nodes) {
      const named = `${host.title}: ${node.id} ${node.type}`;
      if (!(node.type in LiteGraph.registered_node_types)) trouble.push(`${named} is unknown`);
      if (node.has_errors) trouble.push(`${named} is red`);
      for (const slot of node.inputs ?? []) {
        if (slot.link != null && !host.subgraph.getLink(slot.link)) trouble.push(`${named}.${slot.name} hangs loose`);
      }
    }
    for (const slot of host.subgraph.inputs) {
      if (!slot.linkIds.length) trouble.push(`${host.title}: ${slot.name} leads nowhere`);
    }
  }
  return trouble;
})()"""
