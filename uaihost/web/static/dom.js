// Elements and words. What the host says is always set as text, never read as markup.

export const at = (id) => document.getElementById(id);

// make("a.button", {href: "/"}, "text", other): an element with classes, attributes and children.
export function make(kind, attributes, ...children) {
  const [tag, ...classes] = kind.split(".");
  const made = document.createElement(tag);
  if (classes.length) made.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child || child === 0 || child === ""));
  return made;
}

// Set an element's children only when what they are made of has changed: nothing that a person reads, has
// opened or has focused is taken away by the next look.
const shown = new WeakMap();
export function refresh(place, source, children) {
  const text = JSON.stringify(source);
  if (shown.get(place) === text) return;
  shown.set(place, text);
  place.replaceChildren(...[children()].flat(2).filter(Boolean));
}

export const word = (place, text) => {
  if (place.textContent !== text) place.textContent = text;
};

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
export function bytes(size) {
  if (size === null || size === undefined) return "?";
  let unit = 0;
  while (size >= 1000 && unit < UNITS.length - 1) [size, unit] = [size / 1024, unit + 1];
  return `${size >= 100 || unit === 0 ? Math.round(size) : size.toFixed(1)} ${UNITS[unit]}`;
}

export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
