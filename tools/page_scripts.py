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
    "(() => {"
    + STORE
    + "for (const d of [...(store('dialog')?.dialogStack ?? [])]) store('dialog').closeDialog(d) })()"
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
