// The conversation: draws the items, keeps to the newest while the person is there, and keeps their
// place while older messages come in above.

import { Component, createRef, h } from "preact";
import { jumpToLatest } from "../client/actions.ts";
import type { Chat, Snapshot } from "../client/chat.ts";
import { loadNewer, loadOlder } from "../client/history.ts";
import { atHead, hasOlder } from "../client/log.ts";
import { type Actions, Bubble, Thinking } from "./bubble.tsx";
import { DownIcon } from "./icons.tsx";
import { itemsOf } from "./items.ts";
import * as WORDS from "./words.ts";

/** Nearer to the end than this counts as being there. */
const NEAR_PX = 48;
/** Nearer to the beginning than this fetches what came before. */
const TOP_PX = 120;

interface Props {
  chat: Chat;
  snapshot: Snapshot;
  actions: Actions;
  /** Rises when the person sent something: they want to see it. */
  sent: number;
  /** Whether the newest message is in sight. */
  bottom: boolean;
  onBottom(bottom: boolean): void;
}

export class Thread extends Component<Props> {
  #scroll = createRef<HTMLElement>();
  #content = createRef<HTMLDivElement>();
  /** The newest stays in sight, whatever grows. */
  #stuck = true;
  #top = 0;
  /** Which message is at the top of the view, and how far below its edge. */
  #anchor: { element: Element; top: number } | null = null;
  #observer = new ResizeObserver(() => this.#settle());

  override componentDidMount(): void {
    for (const { current } of [this.#scroll, this.#content]) {
      if (current) this.#observer.observe(current);
    }
  }

  override componentWillUnmount(): void {
    this.#observer.disconnect();
  }

  override componentDidUpdate(before: Props): void {
    const { sent, snapshot } = this.props;
    if (before.sent !== sent || before.snapshot.session !== snapshot.session) this.#stick();
    if (before.snapshot.log.messages !== snapshot.log.messages) this.#settle();
  }

  #stick(): void {
    this.#stuck = true;
    this.props.onBottom(true);
    this.#settle();
  }

  /** After anything changed its size or place: the newest, or what was being read, stays put. */
  #settle(): void {
    const view = this.#scroll.current;
    const kept = this.#anchor;
    if (!view) return;
    if (this.#stuck) view.scrollTop = view.scrollHeight;
    else if (kept?.element.isConnected) view.scrollTop += this.#below(kept.element) - kept.top;
  }

  #below(element: Element): number {
    const edge = this.#scroll.current?.getBoundingClientRect().top ?? 0;
    return element.getBoundingClientRect().top - edge;
  }

  #onScroll = (): void => {
    const { chat, snapshot, onBottom } = this.props;
    const view = this.#scroll.current;
    if (!view) return;
    const left = view.scrollHeight - view.scrollTop - view.clientHeight;
    // What grows below is not yet a wish to look elsewhere: that is told by moving up.
    const up = view.scrollTop < this.#top;
    this.#top = view.scrollTop;
    this.#stuck = (left < NEAR_PX || (this.#stuck && !up)) && atHead(snapshot.log);
    onBottom(this.#stuck);
    const elements = [...view.querySelectorAll(".bubble")];
    const element = elements.find((one) => this.#below(one) + one.clientHeight > 0);
    this.#anchor = element ? { element, top: this.#below(element) } : null;
    if (view.scrollTop < TOP_PX && !snapshot.pagingFailed) void loadOlder(chat);
    if (left < TOP_PX) void loadNewer(chat);
  };

  #jump = (): void => {
    jumpToLatest(this.props.chat);
    this.#stick();
    this.#scroll.current?.focus();
  };

  override render({ chat, snapshot, actions, bottom }: Props) {
    const { log, paging, pagingFailed } = snapshot;
    const items = itemsOf(snapshot);
    const replying = log.replies.length > 0;
    return (
      <div class="thread">
        <section
          class="log"
          ref={this.#scroll}
          role="log"
          aria-live="polite"
          aria-relevant="additions"
          // While an answer is being written nothing is read out; at its end, all of it is, once.
          aria-busy={replying || paging !== null}
          aria-label={WORDS.chat}
          // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
          tabIndex={0}
          onScroll={this.#onScroll}
        >
          <div class="content" ref={this.#content}>
            {hasOlder(log) && (
              <button
                type="button"
                class="older"
                disabled={paging !== null}
                onClick={() => void loadOlder(chat)}
              >
                {paging ? WORDS.loadingOlder : pagingFailed ? WORDS.tryAgain : WORDS.older}
              </button>
            )}
            {items.length === 0 && <Empty snapshot={snapshot} />}
            {items.map((item, index) => (
              <Bubble
                key={item.key}
                item={item}
                last={index === items.length - 1}
                follows={items[index - 1]?.side === item.side}
                botName={snapshot.bot.name}
                actions={actions}
              />
            ))}
            {snapshot.othersTyping && !replying && (
              <article class="bubble them">
                <Thinking name={WORDS.assistant} />
              </article>
            )}
          </div>
        </section>
        {(!bottom || !atHead(log)) && (
          <button type="button" class="latest" onClick={this.#jump}>
            <DownIcon /> {WORDS.latest}
          </button>
        )}
      </div>
    );
  }
}

function Empty({ snapshot }: { snapshot: Snapshot }) {
  const { bot, connection, session, ready } = snapshot;
  // A session that is still being fetched is not empty yet.
  if (session && !ready && connection.kind !== "refused") return null;
  return (
    <div class="empty">
      <div class="avatar" aria-hidden="true" />
      <p class="greeting" dir="auto">
        {bot.greeting || WORDS.greeting}
      </p>
      <p class="hint">{WORDS.hint}</p>
    </div>
  );
}
