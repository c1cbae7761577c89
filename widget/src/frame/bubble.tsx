// One message, from its first letter to its last.

import { Component, type ComponentChildren, createRef, h } from "preact";
import type { Item } from "./items.ts";
import { MarkdownWriter } from "./markdown.ts";
import * as WORDS from "./words.ts";

export interface Actions {
  /** Asks the question with this number again, as a new message. */
  askAgain(seq: number): void;
  retry(id: string): void;
  discard(id: string): void;
}

interface Props {
  item: Item;
  /** The newest item: only there does trying again make sense. */
  last: boolean;
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
      next.last !== now.last ||
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
    if (!body || item.side !== "them") return;
    this.#writer ??= new MarkdownWriter(body);
    this.#writer.write(item.text, item.final);
  }

  override render({ item, follows, botName, actions, last }: Props) {
    const name = item.side === "me" ? WORDS.you : item.author || botName || WORDS.assistant;
    const thinking = item.text === "" && !item.final;
    const { status } = item;
    return (
      <article class={`bubble ${item.side} ${status.kind}${follows ? " follows" : ""}`}>
        <span class="sr">{name}: </span>
        {thinking ? (
          <Thinking name={name} />
        ) : (
          item.text !== "" && (
            <div class="text" dir="auto" ref={this.#body}>
              {item.side === "them" ? null : item.text}
            </div>
          )
        )}
        <Status item={item} last={last} actions={actions} />
        {item.at !== null && status.kind === "none" && (
          <time class="at" dateTime={new Date(item.at).toISOString()}>
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
        {name} {WORDS.thinking}
      </span>
      <i />
      <i />
      <i />
    </div>
  );
}

function Status({ item, last, actions }: Pick<Props, "item" | "last" | "actions">) {
  const { status } = item;
  switch (status.kind) {
    case "queued":
      return <Line>{WORDS.queued(status.position, status.etaMs)}</Line>;
    case "cancelled":
      return <Line>{WORDS.cancelled}</Line>;
    case "sending":
      return <Line>{WORDS.sending}</Line>;
    case "waiting":
      return <Line>{WORDS.waitingToSend}</Line>;
    case "failed":
      return (
        <Line bad>
          {status.message || WORDS.failed}
          {last && (
            <button type="button" onClick={() => actions.askAgain(status.to)}>
              {WORDS.tryAgain}
            </button>
          )}
        </Line>
      );
    case "unsent":
      return (
        <Line bad>
          {WORDS.notSent}: {status.tooLong ? WORDS.tooLong : status.message}
          {!status.tooLong && (
            <button type="button" onClick={() => actions.retry(status.id)}>
              {WORDS.tryAgain}
            </button>
          )}
          <button type="button" onClick={() => actions.discard(status.id)}>
            {WORDS.discard}
          </button>
        </Line>
      );
    default:
      return null;
  }
}

function Line({ bad, children }: { bad?: boolean; children: ComponentChildren }) {
  return <p class={bad ? "line bad" : "line"}>{children}</p>;
}
