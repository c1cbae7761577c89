// Where the person writes. Enter sends, Shift+Enter begins a new line; a draft outlives a reload.

import { Component, createRef, h } from "preact";
import { sendText, stopReply, tellTyping } from "../client/actions.ts";
import type { Chat, Snapshot } from "../client/chat.ts";
import { IconButton } from "./button.tsx";
import { SendIcon, StopIcon } from "./icons.tsx";
import * as WORDS from "./words.ts";

/** The counter shows from this share of the limit on. */
const COUNT_FROM = 0.9;

interface Props {
  chat: Chat;
  snapshot: Snapshot;
  /** Rises when the person wants to write: the frame was opened, a new chat begun. */
  focus: number;
  onSent(): void;
}

export class Composer extends Component<Props, { text: string }> {
  #field = createRef<HTMLTextAreaElement>();
  #draftKey = `hubbub:${this.props.chat.bot}:draft`;
  override state = { text: this.props.chat.environment.tab.get(this.#draftKey) ?? "" };

  override componentDidMount(): void {
    this.#fit();
    if (this.props.focus > 0) this.#focus();
  }

  override componentDidUpdate(before: Props, { text }: { text: string }): void {
    const { snapshot, focus } = this.props;
    // What is narrower, with one more button beside it, may need one more line.
    const narrower = before.snapshot.log.replies.length !== snapshot.log.replies.length;
    if (narrower || text !== this.state.text) this.#fit();
    if (before.focus !== focus) this.#focus();
  }

  #focus(): void {
    this.#field.current?.focus({ preventScroll: true });
  }

  /** As tall as its text; the style sheet sets a limit. */
  #fit(): void {
    const field = this.#field.current;
    const form = field?.form;
    if (!form) return;
    // Its surroundings stand still while it is measured: the conversation must not move for that.
    form.style.height = `${form.offsetHeight}px`;
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
    form.style.height = "";
  }

  #change(text: string): void {
    this.setState({ text });
    this.props.chat.environment.tab.set(this.#draftKey, text);
    if (text.trim() !== "") tellTyping(this.props.chat);
  }

  #send = (event: Event): void => {
    event.preventDefault();
    if (this.#length() > this.#limit() || !sendText(this.props.chat, this.state.text)) return;
    this.#change("");
    this.props.onSent();
    this.#focus();
  };

  #onKeyDown = (event: KeyboardEvent): void => {
    // While an input method composes a character, Enter belongs to it.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.#send(event);
  };

  #limit(): number {
    return this.props.snapshot.limits?.text_chars ?? 16_000;
  }

  /** In characters as the server counts them, not UTF-16 units; 0 while far from the limit. */
  #length(): number {
    const { text } = this.state;
    return text.length < this.#limit() * COUNT_FROM ? 0 : [...text.trim()].length;
  }

  override render({ chat, snapshot }: Props, { text }: { text: string }) {
    const limit = this.#limit();
    const length = this.#length();
    const tooLong = length > limit;
    const replying = snapshot.log.replies.length > 0;
    const refused = snapshot.connection.kind === "refused";
    const blank = text.trim() === "";
    return (
      <form class="composer" onSubmit={this.#send}>
        <div class="field">
          <textarea
            ref={this.#field}
            rows={1}
            dir="auto"
            value={text}
            placeholder={WORDS.placeholder}
            aria-label={WORDS.placeholder}
            aria-invalid={tooLong}
            aria-describedby={length > 0 ? "count" : undefined}
            disabled={refused}
            enterkeyhint="send"
            onInput={(event) => this.#change(event.currentTarget.value)}
            onKeyDown={this.#onKeyDown}
          />
          {replying && (
            <IconButton
              class="round stop"
              label={WORDS.stop}
              disabled={!snapshot.ready}
              onClick={() => stopReply(chat)}
            >
              <StopIcon />
            </IconButton>
          )}
          {(!replying || !blank) && (
            <IconButton
              class="round send"
              label={WORDS.send}
              disabled={blank || tooLong || refused}
            >
              <SendIcon />
            </IconButton>
          )}
        </div>
        {length > 0 && (
          <p id="count" class={tooLong ? "count bad" : "count"}>
            {length} / {limit}
          </p>
        )}
      </form>
    );
  }
}
