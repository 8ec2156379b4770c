// The chat page with scripts: the same form, its answer read as a stream. Everything a model says is set as text.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const form = document.getElementById("ask");
  if (!form || !window.ReadableStream) return;
  const talk = document.getElementById("talk");
  const template = document.getElementById("turn");
  const state = document.getElementById("state");
  const failure = document.getElementById("failure");
  const send = document.getElementById("send");
  const stop = document.getElementById("stop");
  const text = form.elements.text;
  let running = null;

  document.getElementById("how").textContent = "Enter sends, Shift+Enter makes a new line.";

  function addTurn(role, who, said) {
    const item = template.content.firstElementChild.cloneNode(true);
    item.classList.add(role);
    item.querySelector("h2").textContent = who;
    item.querySelector(".said").textContent = said;
    talk.append(item);
    return item;
  }

  // Follow the answer while its end stands above the form; who scrolls up to read is left alone.
  function follows(item) {
    return item.getBoundingClientRect().bottom < form.getBoundingClientRect().top + 120;
  }

  function show(item) {
    item.scrollIntoView({ block: "end", behavior: "instant" });
  }

  function fail(told) {
    failure.replaceChildren();
    const strong = document.createElement("strong");
    strong.textContent = told.message;
    failure.append(strong, ` ${(told.hint || "").replaceAll("`", "")}`);
    failure.hidden = false;
  }

  function busy(on) {
    send.disabled = on;
    stop.hidden = !on;
    form.elements.model.disabled = on;
  }

  async function* events(response) {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) {
        const [kind, data] = rest.slice(0, end).split("\n");
        yield { kind: kind.slice(7), data: JSON.parse(data.slice(6)) };
      }
    }
  }

  async function refusal(response) {
    try {
      return await response.json();
    } catch {
      return { message: `The server answered ${response.status}.`, hint: "Load the page again." };
    }
  }

  // Text is written once a frame, however fast it comes: a page that lays itself out for each token cannot be stopped.
  function writer(item, node) {
    const text = node.appendChild(document.createTextNode(""));
    let waiting = "";
    const flush = () => {
      if (!waiting) return;
      const follow = follows(item);
      text.appendData(waiting);
      waiting = "";
      if (follow) show(item);
    };
    return {
      flush,
      write(more) {
        if (!waiting) requestAnimationFrame(flush);
        waiting += more;
      },
    };
  }

  async function read(response, item) {
    const meter = item.querySelector(".meter");
    const said = writer(item, item.querySelector(".said"));
    let thought = null;
    let answer = "";
    for await (const { kind, data } of events(response)) {
      if (kind === "text") {
        answer += data.text;
        item.dataset.answer = answer;
        said.write(data.text);
      } else if (kind === "thought") {
        thought ??= writer(item, think(item.querySelector(".said")));
        thought.write(data.text);
      } else if (kind === "end") {
        said.flush();
        const follow = follows(item);
        meter.textContent = data.meter;
        meter.hidden = false;
        if (follow) show(item);
        state.textContent = `Answered: ${data.meter}`;
        item.dataset.complete = "";
      } else {
        fail(data);
      }
    }
  }

  // Thinking that some models do aloud before they answer: kept apart, folded, and out of the conversation.
  function think(said) {
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    const pre = document.createElement("p");
    summary.textContent = "Thinking";
    pre.className = "hint said";
    details.append(summary, pre);
    said.before(details);
    return pre;
  }

  async function ask() {
    const question = text.value.trim();
    if (!question || running) return;
    const model = form.elements.model.value;
    const body = new URLSearchParams(new FormData(form));
    const history = JSON.parse(form.elements.history.value || "[]");
    failure.hidden = true;
    const asked = addTurn("user", "You", question);
    const item = addTurn("assistant", model, "");
    item.setAttribute("aria-busy", "true");
    show(item);
    state.textContent = `${model} is answering`;
    text.value = "";
    running = new AbortController();
    busy(true);
    let kept = false;
    try {
      const response = await fetch(form.dataset.stream, {
        method: "POST", body, signal: running.signal, headers: { Accept: "text/event-stream" }, credentials: "same-origin",
      });
      if (response.ok) await read(response, item); else fail(await refusal(response));
      kept = Boolean(item.dataset.answer);
      if (response.ok && !("complete" in item.dataset) && failure.hidden) {
        fail({ message: "The answer broke off.", hint: "Send the question again." });
      }
    } catch (error) {
      kept = Boolean(item.dataset.answer);
      if (error.name === "AbortError") {
        item.querySelector(".meter").textContent = "Stopped. What was generated until then stands in the usage.";
        item.querySelector(".meter").hidden = false;
        state.textContent = "Stopped";
      } else {
        fail({ message: "The server cannot be reached.", hint: "Is it running? Nothing was lost: send the question again." });
      }
    } finally {
      item.removeAttribute("aria-busy");
      running = null;
      busy(false);
    }
    if (kept) {
      history.push({ role: "user", content: question }, { role: "assistant", content: item.dataset.answer });
      form.elements.history.value = JSON.stringify(history);
    } else {
      if (!failure.hidden) { asked.remove(); item.remove(); }
      text.value ||= question;
    }
    text.focus();
  }

  form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  stop.addEventListener("click", () => running?.abort());
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
  });
});
