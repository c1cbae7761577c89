// The conversation: draws the items, keeps to the newest while the person is there, and keeps their
// place while older messages come in above.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Chat, Snapshot } from "../client/chat.ts";
import { atHead, firstSeq, hasOlder } from "../client/log.ts";
import { type Actions, Bubble, Thinking } from "./bubble.tsx";
import { DownIcon } from "./icons.tsx";
import { itemsOf } from "./items.ts";
import { WORDS } from "./words.ts";

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
  /** Told when the newest message is in sight, or no longer. */
  onBottom(bottom: boolean): void;
}

export function Thread({ chat, snapshot, actions, sent, onBottom }: Props) {
  const scroll = useRef<HTMLElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const stuck = useRef(true);
  const anchor = useRef<{ element: Element; top: number } | null>(null);
  const [bottom, setBottom] = useState(true);
  const { log, paging, pagingFailed } = snapshot;
  const items = itemsOf(snapshot);
  const replying = log.replies.length > 0;

  const toEnd = () => {
    const element = scroll.current;
    if (element) element.scrollTop = element.scrollHeight;
  };

  const onScroll = () => {
    const element = scroll.current;
    if (!element) return;
    const left = element.scrollHeight - element.scrollTop - element.clientHeight;
    stuck.current = left < NEAR_PX && atHead(chat.snapshot().log);
    setBottom(stuck.current);
    remember();
    if (element.scrollTop < TOP_PX && !pagingFailed) void chat.loadOlder();
    if (left < TOP_PX) void chat.loadNewer();
  };

  /** Which message is at the top of the view, and where: the place to keep. */
  const remember = () => {
    const from = scroll.current?.getBoundingClientRect().top ?? 0;
    const elements = [...(content.current?.querySelectorAll(".bubble") ?? [])];
    const element = elements.find((one) => one.getBoundingClientRect().bottom > from);
    anchor.current = element ? { element, top: element.getBoundingClientRect().top - from } : null;
  };

  // Whatever makes the content or the view another size: the newest stays in sight.
  useEffect(() => {
    const observer = new ResizeObserver(() => {
      if (stuck.current) toEnd();
    });
    if (content.current) observer.observe(content.current);
    if (scroll.current) observer.observe(scroll.current);
    return () => observer.disconnect();
  }, []);

  useLayoutEffect(() => {
    stuck.current = true;
    setBottom(true);
    toEnd();
  }, [sent, snapshot.session]);

  // Messages joined or left above: put the one that was being read back where it was.
  useLayoutEffect(() => {
    const element = scroll.current;
    const kept = anchor.current;
    if (!element) return;
    if (stuck.current) toEnd();
    else if (kept?.element.isConnected) {
      const now = kept.element.getBoundingClientRect().top - element.getBoundingClientRect().top;
      element.scrollTop += now - kept.top;
    }
  }, [firstSeq(log), log.messages.length]);

  useEffect(() => onBottom(bottom), [bottom]);

  const jump = () => {
    chat.jumpToLatest();
    stuck.current = true;
    setBottom(true);
    toEnd();
    scroll.current?.focus();
  };

  return (
    <div class="thread">
      <section
        class="log"
        ref={scroll}
        role="log"
        aria-live="polite"
        aria-relevant="additions"
        // While an answer is being written nothing is read out; at its end, all of it is, once.
        aria-busy={replying || paging !== null}
        aria-label={WORDS.chat}
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
        tabIndex={0}
        onScroll={onScroll}
      >
        <div class="content" ref={content}>
          {hasOlder(log) && (
            <button
              type="button"
              class="older"
              disabled={paging !== null}
              onClick={() => void chat.loadOlder()}
            >
              {paging === "older"
                ? WORDS.loadingOlder
                : pagingFailed
                  ? WORDS.pagingFailed
                  : WORDS.older}
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
        <button type="button" class="latest" onClick={jump}>
          <DownIcon /> {WORDS.latest}
        </button>
      )}
    </div>
  );
}

function Empty({ snapshot }: { snapshot: Snapshot }) {
  const { bot, connection, session, ready } = snapshot;
  // A session that is still being fetched is not empty yet.
  if (session && !ready && connection.kind !== "refused") return null;
  return (
    <div class="empty">
      <div class="spark" aria-hidden="true" />
      <p class="greeting" dir="auto">
        {bot.greeting || WORDS.greeting}
      </p>
      <p class="hint">{WORDS.hint}</p>
    </div>
  );
}
