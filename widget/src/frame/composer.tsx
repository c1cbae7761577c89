// Where the person writes. Enter sends, Shift+Enter begins a new line; a draft outlives a reload.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Chat, Snapshot } from "../client/chat.ts";
import { SendIcon, StopIcon } from "./icons.tsx";
import { WORDS } from "./words.ts";

/** The counter shows from this share of the limit on. */
const COUNT_FROM = 0.9;
const TALLEST_PX = 168;

interface Props {
  chat: Chat;
  snapshot: Snapshot;
  /** Rises when the frame was opened: the person wants to write. */
  focus: number;
  onSent(): void;
}

export function Composer({ chat, snapshot, focus, onSent }: Props) {
  const field = useRef<HTMLTextAreaElement>(null);
  const draftKey = `hubbub:${chat.bot}:draft`;
  const [text, setText] = useState(() => readDraft(draftKey));
  const limit = snapshot.limits?.text_chars ?? 16_000;
  // The limit counts characters as the server does, not UTF-16 units.
  const length = text.length < limit * COUNT_FROM ? 0 : [...text.trim()].length;
  const tooLong = length > limit;
  const replying = snapshot.log.replies.length > 0;
  const refused = snapshot.connection.kind === "refused";
  const blank = text.trim() === "";

  useLayoutEffect(() => {
    const element = field.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${Math.min(element.scrollHeight, TALLEST_PX)}px`;
  }, [text]);

  useEffect(() => {
    if (focus > 0) field.current?.focus({ preventScroll: true });
  }, [focus]);

  const change = (value: string) => {
    setText(value);
    writeDraft(draftKey, value);
    if (value.trim() !== "") chat.typing();
  };

  const send = () => {
    if (blank || tooLong || refused || !chat.send(text)) return;
    change("");
    onSent();
    field.current?.focus();
  };

  const onKeyDown = (event: KeyboardEvent) => {
    // While an input method composes a character, Enter belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };

  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      <div class="field">
        <textarea
          ref={field}
          rows={1}
          dir="auto"
          value={text}
          placeholder={WORDS.placeholder}
          aria-label={WORDS.placeholder}
          aria-invalid={tooLong}
          aria-describedby={length > 0 ? "count" : undefined}
          disabled={refused}
          enterkeyhint="send"
          onInput={(event) => change(event.currentTarget.value)}
          onKeyDown={onKeyDown}
        />
        {replying && (
          <button
            type="button"
            class="round stop"
            aria-label={WORDS.stop}
            title={WORDS.stop}
            disabled={!snapshot.ready}
            onClick={() => chat.stop()}
          >
            <StopIcon />
          </button>
        )}
        {(!replying || !blank) && (
          <button
            type="submit"
            class="round send"
            aria-label={WORDS.send}
            title={WORDS.send}
            disabled={blank || tooLong || refused}
          >
            <SendIcon />
          </button>
        )}
      </div>
      {length > 0 && (
        <p id="count" class={tooLong ? "count bad" : "count"}>
          {length.toLocaleString()} / {limit.toLocaleString()}
        </p>
      )}
    </form>
  );
}

function readDraft(key: string): string {
  try {
    return sessionStorage.getItem(key) ?? "";
  } catch {
    return "";
  }
}

function writeDraft(key: string, text: string): void {
  try {
    if (text) sessionStorage.setItem(key, text);
    else sessionStorage.removeItem(key);
  } catch {
    // Storage is blocked: the draft lives as long as the page.
  }
}
