// The frame: header, state of the connection, conversation, composer.

import { Component, type ComponentChild, h } from "preact";
import {
  canStartNew,
  discard,
  retry,
  sendText,
  startNew,
  startOver,
  tellRead,
  unread,
} from "../client/actions.ts";
import type { Chat, Snapshot } from "../client/chat.ts";
import { canEscalate, escalate } from "../client/escalating.ts";
import { atHead } from "../client/log.ts";
import type { Actions } from "./bubble.tsx";
import { IconButton, textButton } from "./button.tsx";
import { Composer } from "./composer.tsx";
import type { Host } from "./host.ts";
import { CloseIcon, NewIcon } from "./icons.tsx";
import { Thread } from "./thread.tsx";
import * as WORDS from "./words.ts";

interface Props {
  chat: Chat;
  host: Host;
  /** Rises whenever the person begins to look at the frame. */
  looks: number;
  /** Rises with every opening by the host page. */
  openings: number;
}

interface State {
  snapshot: Snapshot;
  sent: number;
  bottom: boolean;
  fresh: number;
}

export class App extends Component<Props, State> {
  override state: State = {
    snapshot: this.props.chat.snapshot,
    sent: 0,
    bottom: true,
    // A page of its own is there to write in; an embedded frame waits for its opening.
    fresh: this.props.host.embedded ? 0 : 1,
  };
  #unsubscribe: (() => void) | null = null;
  /** What the page was told last: how much is unread, and when the last message was written. */
  #unread = 0;
  #talked = -1;
  /** The button that somebody is at by keyboard, before what is drawn next. */
  #at: Element | null = null;

  override componentDidMount(): void {
    const { chat } = this.props;
    this.#unsubscribe = chat.subscribe(() => this.setState({ snapshot: chat.snapshot }));
    document.addEventListener("keydown", this.#onKeyDown);
  }

  override componentWillUnmount(): void {
    this.#unsubscribe?.();
    document.removeEventListener("keydown", this.#onKeyDown);
  }

  override componentDidUpdate(): void {
    // Stop and Try again vanish when they are pressed: whoever did goes on where one writes.
    if (this.#at?.isConnected === false) this.#fresh();
    const { chat, host } = this.props;
    const { bottom, snapshot } = this.state;
    if (bottom && host.open && document.visibilityState === "visible") tellRead(chat);
    const count = host.open ? 0 : unread(chat);
    if (count !== this.#unread) host.tell(count ? { hubbub: "unread", count } : { hubbub: "read" });
    this.#unread = count;
    const at = Date.parse(snapshot.log.messages.at(-1)?.at ?? "") || 0;
    if (snapshot.ready && atHead(snapshot.log) && at !== this.#talked) {
      this.#talked = at;
      host.tell({ hubbub: "talked", at });
    }
  }

  #sent = (): void => this.setState(({ sent }) => ({ sent: sent + 1 }));
  #fresh = (): void => this.setState(({ fresh }) => ({ fresh: fresh + 1 }));
  #onBottom = (bottom: boolean): void => {
    if (bottom !== this.state.bottom) this.setState({ bottom });
  };

  /** On the document: Escape closes wherever the focus is, also nowhere. */
  #onKeyDown = (event: KeyboardEvent): void => {
    if (event.key === "Escape" && !event.isComposing) this.props.host.tell({ hubbub: "close" });
  };

  #actions: Actions = {
    askAgain: (seq) => {
      const { chat } = this.props;
      const asked = chat.snapshot.log.messages.find((message) => message.seq === seq);
      if (asked && sendText(chat, asked.text)) this.#sent();
    },
    goOn: () => {
      if (sendText(this.props.chat, WORDS.goOn)) this.#sent();
    },
    retry: (id) => retry(this.props.chat, id),
    discard: (id) => discard(this.props.chat, id),
  };

  override render({ chat, host, openings }: Props, { snapshot, sent, bottom, fresh }: State) {
    this.#at = document.querySelector("button:focus-visible");
    return (
      <main class="frame">
        <Header chat={chat} host={host} snapshot={snapshot} onNew={this.#fresh} />
        <Banner chat={chat} snapshot={snapshot} />
        <Thread
          chat={chat}
          snapshot={snapshot}
          actions={this.#actions}
          sent={sent}
          bottom={bottom}
          onBottom={this.#onBottom}
        />
        {canEscalate(snapshot) && (
          <p class="offer">{textButton(WORDS.askPerson, () => escalate(chat))}</p>
        )}
        <Composer chat={chat} snapshot={snapshot} focus={fresh + openings} onSent={this.#sent} />
      </main>
    );
  }
}

interface HeaderProps {
  chat: Chat;
  host: Host;
  snapshot: Snapshot;
  onNew(): void;
}

function Header({ chat, host, snapshot, onNew }: HeaderProps) {
  const { bot, connection, handler, session } = snapshot;
  const operator = handler !== "bot" && handler.kind === "operator" ? handler.name : null;
  const online = connection.kind === "online";
  const author = snapshot.log.messages.find((message) => message.role === "assistant")?.author;
  return (
    <header>
      <div class="avatar" aria-hidden="true" />
      <div class="title">
        <h1 dir="auto">{bot.name || author || WORDS.assistant}</h1>
        <p class={online ? "state on" : "state"} aria-live="polite">
          {online
            ? operator === null
              ? WORDS.online
              : WORDS.answers(operator || WORDS.person)
            : connection.kind === "connecting" && connection.attempt === 0
              ? WORDS.connecting
              : WORDS.away}
        </p>
      </div>
      {session && (
        <IconButton
          class="plain"
          label={WORDS.newChat}
          disabled={!canStartNew(chat)}
          onClick={() => {
            startNew(chat);
            onNew();
          }}
        >
          <NewIcon />
        </IconButton>
      )}
      {host.embedded && (
        <IconButton
          class="plain"
          label={WORDS.close}
          onClick={() => host.tell({ hubbub: "close" })}
        >
          <CloseIcon />
        </IconButton>
      )}
    </header>
  );
}

/** The state of the connection, where it is not simply good. Announced when it changes. */
function Banner({ chat, snapshot }: { chat: Chat; snapshot: Snapshot }) {
  const { connection, handler, notice } = snapshot;
  const isAwaiting = handler !== "bot" && handler.kind === "waiting";
  let words: string | null = notice ?? (isAwaiting ? WORDS.awaiting : null);
  let action: ComponentChild = null;
  if (connection.kind === "refused") {
    words = WORDS.REFUSALS[connection.reason];
    if (connection.reason === "signed_out") {
      action = textButton(WORDS.newChat, () => startOver(chat));
    }
  } else if (connection.kind === "offline") {
    words = WORDS.offline;
  } else if (connection.kind !== "online" && connection.attempt > 0) {
    words = WORDS.reconnecting;
    if (connection.kind === "waiting") {
      action = textButton(WORDS.tryAgain, () => chat.connection.retryNow());
    }
  }
  return (
    <div role="status" class={`banner ${connection.kind}`} hidden={!words}>
      {words}
      {action}
    </div>
  );
}
