// Pages that are opened from a disk may start no worker, and the search is one. There, and only there, an
// iframe does a worker's work: same code, same messages.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const base = new URL(url, location.href);
      const inner = this.frame.contentWindow;
      const load = (each) =>
        new Promise((done, failed) => {
          const script = inner.document.createElement("script");
          script.src = new URL(each, base);
          script.onload = done;
          script.onerror = () => failed(new Error(`${script.src} cannot be read`));
          inner.document.body.append(script);
        });
      inner.importScripts = (...urls) => urls.reduce((before, each) => before.then(() => load(each)), Promise.resolve());
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.loaded = load(base);
    }
    postMessage(data) {
      // What is said before the script is there waits for it.
      this.loaded.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.frame.remove();
    }
  };
}
