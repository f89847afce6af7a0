// A line of explanation for each kernel that has one, below the tiles of JupyterLab's launcher and as the tiles' tooltip. The
// launcher itself shows a name and an icon only. This is what JupyterLab loads of an extension, written by hand: no build.

(() => {
  const MARK = 'nslab-explanation';

  /** The kernels that explain themselves (metadata.nslab in kernel.json): by the name that is shown. */
  const explained = app => Object.fromEntries(
    Object.values(app.serviceManager.kernelspecs.specs?.kernelspecs ?? {})
      .filter(spec => spec.metadata?.nslab)
      .map(spec => [spec.display_name, spec.metadata.nslab]));

  const explain = (section, lines) => {
    const shown = [];
    for (const card of section.querySelectorAll('.jp-LauncherCard')) {
      const name = card.querySelector('.jp-LauncherCard-label')?.textContent.trim();
      if (lines[name]) {
        if (card.title !== lines[name]) card.title = lines[name];
        shown.push(name);
      }
    }
    const wanted = shown.map(name => `${name}: ${lines[name]}`).join('\n');
    let block = section.querySelector(`.${MARK}`);
    if (!shown.length || block?.dataset.said === wanted) return;
    block?.remove();
    block = document.createElement('div');
    block.className = MARK;
    block.dataset.said = wanted;
    block.style.cssText = 'margin: 8px 0 4px 12px; color: var(--jp-ui-font-color1); font-size: var(--jp-ui-font-size1); line-height: 1.6';
    for (const name of shown) {
      const line = document.createElement('div');
      const bold = document.createElement('b');
      bold.textContent = name;
      line.append(bold, ` ${lines[name]}`);
      block.append(line);
    }
    section.append(block);
  };

  const plugin = {
    id: 'nslab:launcher',
    description: 'Explains the kernels of nslab in the launcher.',
    autoStart: true,
    activate: app => {
      const look = () => {
        const lines = explained(app);
        for (const section of document.querySelectorAll('.jp-Launcher-section')) {
          if (section.querySelector('.jp-LauncherCard[data-category="Notebook"]')) explain(section, lines);
        }
      };
      // A kernel that could not be started is explained in a dialog, in one line: all of it should be in sight.
      const style = document.createElement('style');
      style.textContent = '.jp-Dialog-body pre { white-space: pre-wrap; }';
      document.head.append(style);
      let waiting = false;
      const soon = () => {
        if (!waiting) requestAnimationFrame(() => { waiting = false; look(); });
        waiting = true;
      };
      new MutationObserver(soon).observe(document.body, { childList: true, subtree: true });
      app.serviceManager.kernelspecs.specsChanged.connect(soon);
      soon();
    }
  };

  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB.nslab = { init: async () => {}, get: async () => () => ({ default: plugin, __esModule: true }) };
})();
