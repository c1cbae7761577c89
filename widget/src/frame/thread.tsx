// The conversation: draws the items, keeps to the newest while the person is there, and keeps their
// place while older messages come in above.

import { Component, createRef, h } from "preact";
import { jumpToLatest } from "../client/actions.ts";
import type { Chat, Snapshot } from "../client/chat.ts";
import { loadNewer, loadOlder } from "../client/history.ts";
import { atHead, hasOlder } from "../client/log.ts";
import { type Actions, Bubble, Thinking } from "./bubble.tsx";
import { Follower } from "./follow.ts";
import { DownIcon } from "./icons.tsx";
import { follows, isOpen, itemsOf } from "./items.ts";
import * as WORDS from "./words.ts";

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
  #follower: Follower | null = null;

  override componentDidMount(): void {
    const [view, content] = [this.#scroll.current, this.#content.current];
    if (!view || !content) return;
    this.#follower = new Follower(
      view,
      content,
      () => atHead(this.props.snapshot.log),
      () => this.props.onBottom(this.#follower?.following ?? true),
    );
    this.#follower.settle();
  }

  override componentWillUnmount(): void {
    this.#follower?.stop();
  }

  override componentDidUpdate(before: Props): void {
    const { sent, snapshot } = this.props;
    const isOther = before.snapshot.session !== snapshot.session;
    if (before.sent !== sent || isOther) this.#follower?.follow();
    // Before the browser tells of what it moved itself.
    else this.#follower?.settle();
  }

  #onScroll = (): void => {
    const { chat, snapshot } = this.props;
    const view = this.#scroll.current;
    if (!view) return;
    if (view.scrollTop < TOP_PX && !snapshot.pagingFailed) loadOlder(chat);
    if (view.scrollHeight - view.scrollTop - view.clientHeight < TOP_PX) loadNewer(chat);
  };

  #jump = (): void => {
    jumpToLatest(this.props.chat);
    this.#follower?.follow();
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
                onClick={() => loadOlder(chat)}
              >
                {paging ? WORDS.loadingOlder : pagingFailed ? WORDS.tryAgain : WORDS.older}
              </button>
            )}
            {items.length === 0 && <Empty snapshot={snapshot} />}
            {items.map((item, index) => (
              <Bubble
                key={item.key}
                item={item}
                open={isOpen(snapshot, item, index === items.length - 1)}
                follows={follows(item, items[index - 1])}
                botName={snapshot.bot.name}
                actions={actions}
              />
            ))}
            {snapshot.typist !== null && !replying && (
              <article class="bubble them">
                <Thinking name={snapshot.typist || WORDS.person} />
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
