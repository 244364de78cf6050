// Elements without a framework: text is always text, never markup.

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

const PATHS = {
  back: "M15 5l-7 7 7 7",
  external: "M14 5h5v5M19 5l-8 8M10 6H6v12h12v-4",
  stop: "M7 7h10v10H7z",
  send: "M5 12h13M12 5l7 7-7 7",
  clip: "M8 12l5-5a3 3 0 0 1 4 4l-7 7a5 5 0 0 1-7-7l7-7",
  file: "M7 4h7l4 4v12H7zM14 4v4h4",
  image: "M4 6h16v12H4zM4 16l5-5 4 4 2-2 5 5M15.5 9.5h.01",
  up: "M6 15l6-6 6 6",
  down: "M6 9l6 6 6-6",
  check: "M5 13l4 4L19 7",
  cross: "M6 6l12 12M18 6L6 18",
  reload: "M19 12a7 7 0 1 1-2-5M19 4v4h-4",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

export function duration(ms) {
  if (ms === undefined || ms === null) return "";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60000)} min ${Math.round((ms % 60000) / 1000)} s`;
}

export function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

// A small part of Markdown: fences, quotes, lists, headings, `code`, **bold** and addresses.
export function prose(text) {
  const blocks = [];
  const lines = text.split("\n");
  let at = 0;
  const take = (test) => {
    const found = [];
    while (at < lines.length && test(lines[at])) found.push(lines[at++]);
    return found;
  };
  while (at < lines.length) {
    const line = lines[at];
    if (/^\s*```/.test(line)) {
      at += 1;
      const code = take((next) => !/^\s*```/.test(next));
      at += 1;
      blocks.push(el("pre", { tabindex: "0" }, el("code", {}, code.join("\n"))));
    } else if (/^>/.test(line)) {
      const quoted = take((next) => /^>/.test(next)).map((next) => next.replace(/^> ?/, ""));
      blocks.push(el("blockquote", {}, inline(quoted.join("\n"))));
    } else if (/^\s*[-*] /.test(line)) {
      const items = take((next) => /^\s*[-*] /.test(next));
      blocks.push(el("ul", {}, items.map((item) => el("li", {}, inline(item.replace(/^\s*[-*] /, ""))))));
    } else if (/^\s*\d+[.)] /.test(line)) {
      const items = take((next) => /^\s*\d+[.)] /.test(next));
      blocks.push(el("ol", {}, items.map((item) => el("li", {}, inline(item.replace(/^\s*\d+[.)] /, ""))))));
    } else if (/^#{1,6} /.test(line)) {
      at += 1;
      blocks.push(el("p", { class: "heading" }, inline(line.replace(/^#+ /, ""))));
    } else if (!line.trim()) {
      at += 1;
    } else {
      const words = take((next) => next.trim() && !/^(\s*```|>|\s*[-*] |\s*\d+[.)] |#{1,6} )/.test(next));
      blocks.push(el("p", {}, inline(words.join("\n"))));
    }
  }
  return blocks;
}

function inline(text) {
  const parts = text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*|https?:\/\/[^\s<>"')\]]+)/);
  return parts.filter(Boolean).map((part) => {
    if (/^`[^`\n]+`$/.test(part)) return el("code", {}, part.slice(1, -1));
    if (/^\*\*[^*\n]+\*\*$/.test(part)) return el("strong", {}, part.slice(2, -2));
    if (/^https?:\/\//.test(part)) return el("a", { href: part, target: "_blank", rel: "noopener noreferrer" }, part);
    return part;
  });
}
