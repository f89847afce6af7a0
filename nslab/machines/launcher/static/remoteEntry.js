// A line of explanation for each kernel that has one, below the tiles of JupyterLab's launcher and as the tiles' tooltip: the
// launcher itself shows a name and an icon only. A notification while a kernel of one's own boots, and the dialog of one that
// did not, in lines. This is what JupyterLab loads of an extension, written by hand: no build.

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

  /** Looks whether the notebook in front waits for a kernel of its own, and says so once that takes a moment. */
  const bootsOf = app => {
    const WAITS = ['initializing', 'starting', 'connecting', 'restarting', 'autorestarting'];
    let soon = 0;
    let shown = null;  // a promise of its id
    return () => {
      const context = app.shell.currentWidget?.sessionContext;
      const names = Object.values(app.serviceManager.kernelspecs.specs?.kernelspecs ?? {})
        .filter(spec => spec.metadata?.kernel_provisioner?.provisioner_name === 'nslab-own-kernel')
        .map(spec => spec.display_name);
      const waits = context && names.includes(context.kernelDisplayName) && WAITS.includes(context.kernelDisplayStatus);
      if (waits && !soon) {
        soon = setTimeout(() => {
          shown = app.commands.execute('apputils:notify', {
            message: 'A Linux kernel of your own is booting. That takes some seconds, on a busy machine longer.',
            type: 'in-progress', options: { autoClose: false }
          });
        }, 700);
      } else if (!waits && soon) {
        clearTimeout(soon);
        shown?.then(id => app.commands.execute('apputils:dismiss-notification', { id }));
        soon = 0;
        shown = null;
      }
    };
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
        // The server's answer is one line: a sign stands where there were more.
        for (const text of document.querySelectorAll('.jp-Dialog-body pre')) {
          if (text.textContent.includes(' \u23ce ')) text.textContent = text.textContent.replaceAll(' \u23ce ', '\n');
        }
        boots();
      };
      const style = document.createElement('style');
      style.textContent = '.jp-Dialog-body pre { white-space: pre-wrap; }';
      document.head.append(style);
      const boots = bootsOf(app);
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
