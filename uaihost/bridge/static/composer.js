// The box to write in: who hears it, completion of names and orders, and files that go with a message.

import { el, icon } from "./dom.js";
import { bytes, hearers, order, ORDERS } from "./words.js";

// What one file may have, in bytes, and how many go with a message: the host takes no larger ones.
const LARGEST = 25 * 1024 * 1024;
const MOST = 10;

export class Composer {
  // send(text, files): resolves to "" or to why it was refused; taken(): names of files that are there already.
  constructor(crew, channel, { send, taken }) {
    this.crew = crew;
    this.channel = channel;
    this.deliver = send;
    this.taken = taken;
    this.files = []; // {name, size, type, file, path}
    this.choices = [];
    this.at = -1;
    this.box = el("textarea", {
      id: "say", rows: "1", placeholder: "Say something to the agents…", "aria-label": "Message",
      role: "combobox", "aria-expanded": "false", "aria-controls": "choices", "aria-autocomplete": "list", "aria-describedby": "hears",
      oninput: () => this.changed(), onclick: () => this.offer(), onblur: () => this.close(), onkeydown: (key) => this.key(key),
      onpaste: (event) => { if (event.clipboardData.files.length) { event.preventDefault(); this.add(event.clipboardData.files); } },
    });
    this.list = el("ul", { id: "choices", class: "choices card", role: "listbox", "aria-label": "Completions", hidden: true });
    this.hears = el("p", { id: "hears", class: "hears dim", hidden: true });
    this.chips = el("ul", { class: "chips", "aria-label": "Files of this message", hidden: true });
    this.limits = el("p", { class: "hears dim", hidden: true }, `Up to ${MOST} files of ${LARGEST >> 20} MiB each; the agents find them in /attachments.`);
    this.problem = el("p", { class: "problem", role: "alert", hidden: true });
    this.picker = el("input", { type: "file", multiple: true, hidden: true, "aria-label": "Files", onchange: () => { this.add(this.picker.files); this.picker.value = ""; } });
    this.button = el("button", { class: "primary round", type: "submit", "aria-label": "Send" }, icon("send"));
    this.clip = el("button", { class: "quiet round", type: "button", "aria-label": "Attach files", title: `Attach files of up to ${LARGEST >> 20} MiB`, onclick: () => this.picker.click() }, icon("clip"));
    this.form = el("form", { class: "composer", onsubmit: (event) => { event.preventDefault(); this.send(); } }, this.clip, this.picker, this.box, this.button);
    this.node = el("div", { class: "write" }, this.problem, this.chips, this.limits, this.list, this.form, this.hears);
  }

  changed() {
    this.fit();
    this.offer();
    this.addressed();
  }

  fit() {
    this.box.rows = 1;
    const line = parseFloat(getComputedStyle(this.box).lineHeight);
    this.box.rows = Math.min(8, Math.max(1, Math.floor((this.box.scrollHeight - 16) / line)));
  }

  // Who would hear this; of a crew of one there is nothing to say.
  addressed() {
    const ids = this.crew.ids;
    const text = this.box.value;
    this.hears.hidden = ids.length < 2 || !text.trim();
    if (this.hears.hidden) return;
    if (order(text)) {
      this.hears.replaceChildren("An order to the channel; no agent reads it.");
      return;
    }
    const heard = hearers(text, ids, this.channel.partner);
    this.hears.replaceChildren("Goes to ", ...heard.flatMap((id, at) => [at ? ", " : "", this.crew.name(id)]));
  }

  mention(id) {
    const { value, selectionStart: at } = this.box;
    const before = value.slice(0, at);
    const word = `${/\S$/.test(before) ? " " : ""}@${id} `;
    this.box.setRangeText(word, at, this.box.selectionEnd, "end");
    this.box.focus();
    this.changed();
    this.close();
  }

  // ---- completion

  offer() {
    const before = this.box.value.slice(0, this.box.selectionStart);
    const name = /(?:^|[\s(,:])@([A-Za-z0-9_-]*)$/.exec(before)?.[1];
    const verb = /^\/([a-z-]*)$/.exec(before)?.[1];
    if (this.box.selectionStart !== this.box.selectionEnd) this.choices = [];
    else if (name !== undefined) {
      const fits = (word) => word.toLowerCase().startsWith(name.toLowerCase());
      this.choices = this.crew.ids.filter((id) => fits(id) || fits(this.crew.label(id))).map((id) => ({ word: `@${id} `, over: name.length + 1, shown: [this.crew.name(id), el("span", { class: "dim" }, `@${id}`)] }));
    } else if (verb !== undefined) {
      this.choices = ORDERS.filter(([word]) => word.startsWith(verb)).map(([word, about]) => ({ word: `/${word} `, over: verb.length + 1, shown: [el("strong", {}, `/${word}`), el("span", { class: "dim" }, about)] }));
    } else this.choices = [];
    this.at = this.choices.length ? 0 : -1;
    this.show();
  }

  show() {
    this.list.hidden = !this.choices.length;
    this.box.setAttribute("aria-expanded", String(!this.list.hidden));
    this.list.replaceChildren(...this.choices.map((choice, at) => el("li", {
      id: `choice-${at}`, role: "option", "aria-selected": String(at === this.at),
      // The box keeps the focus, or the list would close before the click.
      onmousedown: (event) => { event.preventDefault(); this.take(at); },
    }, choice.shown)));
    if (this.at >= 0) {
      this.box.setAttribute("aria-activedescendant", `choice-${this.at}`);
      this.list.children[this.at]?.scrollIntoView({ block: "nearest" });
    } else this.box.removeAttribute("aria-activedescendant");
  }

  close() {
    this.choices = [];
    this.at = -1;
    this.show();
  }

  take(at) {
    const { word, over } = this.choices[at];
    const end = this.box.selectionStart;
    this.box.setRangeText(word, end - over, end, "end");
    this.changed();
  }

  key(key) {
    if (key.isComposing) return;
    if (this.choices.length) {
      const step = { ArrowDown: 1, ArrowUp: -1 }[key.key];
      const taken = key.key === "Tab" || (key.key === "Enter" && !this.complete());
      if (step || taken || key.key === "Escape") {
        key.preventDefault();
        if (step) {
          this.at = (this.at + step + this.choices.length) % this.choices.length;
          this.show();
        } else if (taken) this.take(this.at);
        else this.close();
        return;
      }
    }
    if (key.key === "Enter" && !key.shiftKey) {
      key.preventDefault();
      this.send();
    }
  }

  // A name or an order that stands there in full needs no completion: Enter sends.
  complete() {
    const { word, over } = this.choices[this.at];
    const end = this.box.selectionStart;
    return this.box.value.slice(end - over, end) === word.trim();
  }

  // ---- files

  add(files) {
    this.tell("");
    const names = new Set([...this.taken(), ...this.files.map((one) => one.name)]);
    for (const file of files) {
      if (this.files.length >= MOST) {
        this.tell(`A message takes ${MOST} files at most.`);
        break;
      }
      if (file.size > LARGEST) {
        this.tell(`${file.name} has ${bytes(file.size)}; a file may have ${LARGEST >> 20} MiB. Share a larger one in another way.`);
        continue;
      }
      const name = free(clean(file.name), names);
      names.add(name);
      this.files.push({ name, size: file.size, type: file.type, file, path: null });
    }
    this.attached();
    this.box.focus();
  }

  attached() {
    this.chips.hidden = this.limits.hidden = !this.files.length;
    this.chips.replaceChildren(...this.files.map((one) => el("li", { class: "chip-file" }, icon(one.type.startsWith("image/") ? "image" : "file"),
      el("span", { class: "chip-name" }, one.name), el("span", { class: "dim" }, one.busy ? "sending…" : bytes(one.size)),
      el("button", { class: "quiet tiny", type: "button", "aria-label": `Remove ${one.name}`, disabled: Boolean(one.busy || one.path), onclick: () => {
        this.files = this.files.filter((other) => other !== one);
        this.attached();
        this.box.focus();
      } }, icon("cross")))));
  }

  // ---- sending

  async send() {
    const text = this.box.value.trim();
    if ((!text && !this.files.length) || this.sending) return;
    this.tell("");
    this.close();
    const files = this.files;
    this.sending = this.box.readOnly = this.button.disabled = Boolean(files.length);
    if (!files.length) this.clear();
    const problem = await this.deliver(text, files, () => this.attached());
    this.sending = this.box.readOnly = this.button.disabled = false;
    for (const one of files) one.busy = false;
    if (!problem) {
      if (files.length) this.clear();
      return;
    }
    if (!this.box.value) this.box.value = text;
    this.attached();
    this.changed();
    this.close();
    this.tell(problem);
  }

  clear() {
    this.box.value = "";
    this.files = [];
    this.attached();
    this.changed();
  }

  tell(problem) {
    this.problem.textContent = problem;
    this.problem.hidden = !problem;
  }
}

// A name that the host takes for a file.
function clean(name) {
  return name.replace(/[\p{C}\p{Zl}\p{Zp}/\\]/gu, "_").replace(/^\.+/, "").slice(-80) || "file";
}

// An older file of the same name would be replaced, and with it what older messages speak of.
function free(name, taken) {
  const dot = name.lastIndexOf(".");
  const [stem, end] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
  let found = name;
  for (let number = 2; taken.has(found); number += 1) found = `${stem}-${number}${end}`;
  return found;
}

// What a file holds, in base64.
export function base64(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}
