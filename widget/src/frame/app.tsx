// The frame: header, state of the connection, conversation, composer.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Chat, Snapshot } from "../client/chat.ts";
import { lastSeq } from "../client/log.ts";
import type { Actions } from "./bubble.tsx";
import { Composer } from "./composer.tsx";
import type { Host } from "./host.ts";
import { CloseIcon, NewIcon } from "./icons.tsx";
import { Thread } from "./thread.tsx";
import { REFUSALS, WORDS } from "./words.ts";

interface Props {
  chat: Chat;
  host: Host;
  /** Rises with every opening by the host page. */
  openings: number;
}

export function App({ chat, host, openings }: Props) {
  const [snapshot, setSnapshot] = useState(chat.snapshot());
  const [sent, setSent] = useState(0);
  const [bottom, setBottom] = useState(true);
  const [focus, setFocus] = useState(host.embedded ? 0 : 1);
  const head = useRef(-1);

  useEffect(() => chat.subscribe(() => setSnapshot(chat.snapshot())), [chat]);
  useEffect(() => setFocus((n) => n + openings), [openings]);

  const newest = lastSeq(snapshot.log);
  useEffect(() => {
    if (bottom && host.open && document.visibilityState === "visible") chat.read();
    if (head.current >= 0 && newest > head.current && !host.open) host.tell({ hubbub: "unread" });
    if (snapshot.ready) head.current = newest;
  }, [newest, bottom, openings, snapshot.ready]);

  const actions = useMemo<Actions>(
    () => ({
      askAgain(seq) {
        const asked = chat.snapshot().log.messages.find((message) => message.seq === seq);
        if (asked && chat.send(asked.text)) setSent((n) => n + 1);
      },
      retry: (id) => chat.retry(id),
      discard: (id) => chat.discard(id),
    }),
    [chat],
  );

  return (
    <main
      class="frame"
      onKeyDown={(event) => {
        if (event.key === "Escape" && !event.isComposing) host.tell({ hubbub: "close" });
      }}
    >
      <Header chat={chat} host={host} snapshot={snapshot} onNew={() => setFocus((n) => n + 1)} />
      <Banner chat={chat} snapshot={snapshot} />
      <Thread chat={chat} snapshot={snapshot} actions={actions} sent={sent} onBottom={setBottom} />
      <Composer
        chat={chat}
        snapshot={snapshot}
        focus={focus}
        onSent={() => setSent((n) => n + 1)}
      />
    </main>
  );
}

interface HeaderProps {
  chat: Chat;
  host: Host;
  snapshot: Snapshot;
  onNew(): void;
}

function Header({ chat, host, snapshot, onNew }: HeaderProps) {
  const { bot, connection, session } = snapshot;
  const online = connection.kind === "online";
  const author = snapshot.log.messages.find((message) => message.role === "assistant")?.author;
  return (
    <header>
      <div class="avatar" aria-hidden="true" />
      <div class="title">
        <h1 dir="auto">{bot.name || author || WORDS.assistant}</h1>
        <p class={online ? "state on" : "state"}>
          {online
            ? WORDS.online
            : connection.kind === "offline"
              ? WORDS.offline
              : connection.kind === "connecting" && connection.attempt === 0
                ? WORDS.connecting
                : connection.kind === "refused"
                  ? WORDS.chat
                  : WORDS.reconnecting}
        </p>
      </div>
      {session && (
        <button
          type="button"
          class="plain"
          aria-label={WORDS.newChat}
          title={WORDS.newChat}
          disabled={!chat.canStartNew()}
          onClick={() => {
            chat.newChat();
            onNew();
          }}
        >
          <NewIcon />
        </button>
      )}
      {host.embedded && (
        <button
          type="button"
          class="plain"
          aria-label={WORDS.close}
          title={WORDS.close}
          onClick={() => host.tell({ hubbub: "close" })}
        >
          <CloseIcon />
        </button>
      )}
    </header>
  );
}

/** The state of the connection, where it is not simply good. Announced when it changes. */
function Banner({ chat, snapshot }: { chat: Chat; snapshot: Snapshot }) {
  const { connection, notice } = snapshot;
  let words: string | null = notice;
  let action: { label: string; run(): void } | null = null;
  if (connection.kind === "refused") {
    words = REFUSALS[connection.reason];
    if (connection.reason === "signed_out") {
      action = { label: WORDS.startOver, run: () => chat.startOver() };
    }
  } else if (connection.kind === "offline") {
    words = WORDS.offlineMore;
  } else if (connection.kind !== "online" && connection.attempt > 0) {
    words = WORDS.reconnecting;
    if (connection.kind === "waiting") {
      action = { label: WORDS.reconnectNow, run: () => chat.retryConnection() };
    }
  }
  return (
    <div role="status" class={`banner ${connection.kind}`} hidden={!words}>
      {words}
      {action && (
        <button type="button" onClick={action.run}>
          {action.label}
        </button>
      )}
    </div>
  );
}
