// What a page does beyond its forms: it keeps open what the user opened, says when the console is
// gone, and copies and shares what is to be carried elsewhere.
"use strict";

// Only the user opens and closes a part of the page, and types into it; an update does not.
Idiomorph.defaults.callbacks.beforeAttributeUpdated = (name, node) =>
  !(node.tagName === "DETAILS" && name === "open") &&
  !(node.tagName === "INPUT" && ["value", "checked"].includes(name) && node.type !== "hidden");

// A browser has six connections to one place: a page that nobody sees gives its own back, and catches
// up when it is looked at again.
class Told {
  #listeners = [];

  constructor(url) {
    this.url = url;
    document.addEventListener("visibilitychange", () => this.#look());
    this.#look();
  }

  #look() {
    if (document.hidden || this.ended) {
      this.source?.close();
    } else if (this.readyState === EventSource.CLOSED) {
      this.source = new EventSource(this.url);
      this.source.onopen = (event) => this.onopen?.(event);
      this.source.onerror = (event) => this.onerror?.(event);
      this.#listeners.forEach((listener) => this.source.addEventListener(...listener));
    }
  }

  get readyState() {
    return this.source?.readyState ?? EventSource.CLOSED;
  }

  addEventListener(...listener) {
    this.#listeners.push(listener);
    this.source?.addEventListener(...listener);
  }

  removeEventListener(name, listener) {
    this.#listeners = this.#listeners.filter((known) => known[0] !== name || known[1] !== listener);
    this.source?.removeEventListener(name, listener);
  }

  close() {
    this.ended = true;
    this.#look();
  }
}

htmx.createEventSource = (url) => new Told(url);

const gone = (text) => {
  const banner = document.getElementById("gone");
  banner.querySelector("span").textContent = text;
  banner.hidden = text === "";
};

document.addEventListener("htmx:sseOpen", () => gone(""));
document.addEventListener("htmx:sseError", async () => {
  const { probe, ended, silent } = document.getElementById("gone").dataset;
  try {
    const answer = await fetch(probe, { method: "HEAD", redirect: "manual" });
    gone(answer.ok || answer.status >= 500 ? "" : ended);
  } catch {
    gone(silent);
  }
});

// The browser's own share sheet, where it has one.
if (navigator.share) {
  document.documentElement.dataset.shares = "";
}

// The pictures that go with what is shared: those that are here, and small enough.
function pictures(section) {
  return Promise.all([...section.querySelectorAll("data[value]")].map(async (one) => {
    const answer = await fetch(one.value);
    return new File([await answer.blob()], one.dataset.name, { type: one.dataset.media });
  }));
}

document.addEventListener("click", async (event) => {
  const sharing = event.target.closest("[data-share]");
  if (sharing) {
    const text = document.getElementById(sharing.dataset.share).textContent;
    const sent = { text };
    const files = await pictures(sharing.closest("section")).catch(() => []);
    if (files.length && navigator.canShare?.({ files })) {
      sent.files = files;
    }
    // Whoever closes the sheet again has changed nothing.
    await navigator.share(sent).catch(() => {});
  }
  const button = event.target.closest("[data-copy]");
  if (button) {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  }
});

// A form is sent once.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) {
    event.preventDefault();
  }
  event.target.dataset.sent = "yes";
});
