// One message, from its first letter to its last.

import { Component, createRef, h } from "preact";
import { textButton } from "./button.tsx";
import type { Item } from "./items.ts";
import { MarkdownWriter } from "./markdown.ts";
import * as WORDS from "./words.ts";

export interface Actions {
  /** Asks the question with this number again, as a new message. */
  askAgain(seq: number): void;
  /** Asks for the rest of an answer that was cut short. */
  goOn(): void;
  retry(id: string): void;
  discard(id: string): void;
}

interface Props {
  item: Item;
  /** Trying again makes sense here. */
  open: boolean;
  /** The one before is from the same side: no need to name it again. */
  follows: boolean;
  botName: string;
  actions: Actions;
}

export class Bubble extends Component<Props> {
  #body = createRef<HTMLDivElement>();
  #writer: MarkdownWriter | null = null;

  override shouldComponentUpdate(next: Props): boolean {
    const now = this.props;
    return (
      next.item !== now.item ||
      next.open !== now.open ||
      next.follows !== now.follows ||
      next.botName !== now.botName
    );
  }

  override componentDidMount(): void {
    this.#draw();
  }

  override componentDidUpdate(): void {
    this.#draw();
  }

  /** What the bot writes is markdown and grows; what a person writes is shown as written. */
  #draw(): void {
    const { item } = this.props;
    const body = this.#body.current;
    if (!body || item.side !== "them" || item.person) return;
    this.#writer ??= new MarkdownWriter(body);
    this.#writer.write(item.text, item.final);
  }

  override render({ item, follows, botName, actions, open }: Props) {
    const name = item.side === "me" ? WORDS.you : item.author || botName || WORDS.assistant;
    const thinking = item.text === "" && !item.final;
    const { status } = item;
    return (
      <article
        class={`bubble ${item.side} ${status.kind}${follows ? " follows" : ""}${item.person ? " person" : ""}`}
      >
        {item.person && !follows ? (
          <span class="by" dir="auto">
            {name}
          </span>
        ) : (
          <span class="sr" dir="auto">
            {name}:{" "}
          </span>
        )}
        {thinking ? (
          <Thinking name={name} />
        ) : (
          item.text !== "" && (
            <div class="text" ref={this.#body}>
              {item.side === "them" && !item.person ? null : item.text}
            </div>
          )
        )}
        <Status item={item} open={open} actions={actions} />
        {item.at !== null && /none|cut/.test(status.kind) && (
          <time class="at" dir="auto" dateTime={new Date(item.at).toISOString()}>
            {WORDS.time(item.at)}
          </time>
        )}
      </article>
    );
  }
}

/** Shown from the moment an answer is promised until its first word. */
export function Thinking({ name }: { name: string }) {
  return (
    <div class="thinking">
      <span class="sr">
        {name} {WORDS.writing}
      </span>
      <i />
      <i />
      <i />
    </div>
  );
}

/** What is said of an item below it, where its kind alone says it. */
const SAID: Partial<Record<Item["status"]["kind"], string>> = {
  thinking: WORDS.thinking,
  cut: WORDS.cut,
  cancelled: WORDS.cancelled,
  sending: WORDS.sending,
  waiting: WORDS.waitingToSend,
};

function Status({ item: { status }, open, actions }: Pick<Props, "item" | "open" | "actions">) {
  const words = "words" in status ? status.words : SAID[status.kind];
  if (!words) return null;
  return (
    <p class={/failed|unsent/.test(status.kind) ? "line bad" : "line"} dir="auto">
      {words}
      {open && status.kind === "cut" && textButton(WORDS.goOn, actions.goOn)}
      {open &&
        status.kind === "failed" &&
        textButton(WORDS.tryAgain, () => actions.askAgain(status.to))}
      {status.kind === "unsent" && [
        !status.tooLong && textButton(WORDS.tryAgain, () => actions.retry(status.id)),
        textButton(WORDS.discard, () => actions.discard(status.id)),
      ]}
    </p>
  );
}
