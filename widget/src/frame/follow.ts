// Where the conversation stands in its view. The newest stays in sight whatever changes its size:
// answers that grow, lines that vanish, a composer that shrinks. Only a reader's gesture ends that;
// then what is being read stays where it is, until they come back to the end or send something.
//
// A scroll event alone says nothing about a wish: browsers clamp the position when content shrinks,
// and tell it the same way.

/** Coming back to within this of the end counts as being there. */
const NEAR_PX = 48;
/** Smooth scrolling and momentum go on this long after a gesture, or after they last moved. */
const GESTURE_MS = 1_000;
const DRAG_MS = 10_000;
/** To be moved by a script would stop the scrolling that a gesture begins: it has this long to begin. */
const BEGIN_MS = 250;

export class Follower {
  /** The newest is to be in sight. */
  following = true;
  #view: HTMLElement;
  #changed: () => void;
  /** Whether the end of what is drawn is the end of the conversation. */
  #isEnd: () => boolean;
  /** As it was left last; what differs now, the browser or a reader changed. */
  #top = 0;
  #height = 0;
  #room = 0;
  /** Until when moving up is the reader's wish, and until when it may still begin. */
  #up = 0;
  #begins = 0;
  /** Whatever an earlier gesture still moves until then is not wanted any more. */
  #firm = 0;
  #touch = 0;
  /** The message at the top of the view, and how far below its edge. */
  #anchor: { element: Element; top: number } | null = null;
  #observer = new ResizeObserver(() => this.settle());

  constructor(view: HTMLElement, content: Element, isEnd: () => boolean, changed: () => void) {
    this.#view = view;
    this.#isEnd = isEnd;
    this.#changed = changed;
    this.#observer.observe(view);
    this.#observer.observe(content);
    const on = (type: string, listener: (event: never) => void) =>
      view.addEventListener(type, listener as EventListener, { passive: true });
    on("scroll", () => this.#onScroll());
    on("wheel", ({ ctrlKey, deltaY }: WheelEvent) => {
      if (!ctrlKey && deltaY < 0) this.#push();
    });
    for (const type of ["touchstart", "touchmove"]) {
      on(type, ({ touches }: TouchEvent) => {
        const at = touches[0]?.clientY ?? 0;
        if (type === "touchmove" && at > this.#touch) this.#wish();
        this.#touch = at;
      });
    }
    on("keydown", ({ key, shiftKey }: KeyboardEvent) => {
      if (shiftKey || /^(ArrowUp|PageUp|Home|Tab)$/.test(key)) this.#push();
    });
    // Where a scroll bar is dragged, nothing else is told; its end is not either.
    on("pointerdown", () => this.#wish(DRAG_MS));
  }

  stop(): void {
    this.#observer.disconnect();
  }

  /** To the newest, and stay there. */
  follow(): void {
    this.#up = this.#begins = 0;
    this.#firm = performance.now() + GESTURE_MS;
    this.#turn(true);
    this.settle();
  }

  /** After anything changed its size or place: the newest, or what is being read, stays in sight. */
  settle(): void {
    const view = this.#view;
    const kept = this.#anchor;
    if (view.clientHeight === 0 || (this.following && performance.now() < this.#begins)) return;
    if (this.following) view.scrollTop = view.scrollHeight;
    else if (kept?.element.isConnected) view.scrollTop += this.#below(kept.element) - kept.top;
    this.#note();
  }

  #wish(ms = GESTURE_MS): void {
    this.#up = Math.max(this.#up, performance.now() + ms);
  }

  /** A gesture that scrolls by itself. */
  #push(): void {
    this.#wish();
    this.#begins = performance.now() + BEGIN_MS;
    setTimeout(() => this.settle(), BEGIN_MS);
  }

  #onScroll(): void {
    const view = this.#view;
    const { scrollTop, scrollHeight, clientHeight } = view;
    const now = performance.now();
    const moved = scrollTop - this.#top;
    const left = scrollHeight - scrollTop - clientHeight;
    const wished = now < this.#up;
    // What no change of size explains is a reader's too: searching in the page, a screen reader.
    const unexplained =
      scrollHeight === this.#height && clientHeight === this.#room && now > this.#firm;
    if (moved < 0 && wished) this.#wish();
    if (!this.following) {
      this.#turn(this.#isEnd() && (left <= 1 || (moved > 1 && left < NEAR_PX)));
    } else if (left > 0 && (wished ? moved < 0 : unexplained && moved < -1)) {
      this.#turn(false);
    } else {
      if (!wished) this.settle();
      return;
    }
    this.#note();
    const elements = [...view.querySelectorAll(".bubble")];
    const element = elements.find((one) => this.#below(one) + one.clientHeight > 0);
    this.#anchor = element ? { element, top: this.#below(element) } : null;
  }

  #turn(following: boolean): void {
    if (this.following === following) return;
    this.following = following;
    this.#changed();
  }

  #note(): void {
    this.#top = this.#view.scrollTop;
    this.#height = this.#view.scrollHeight;
    this.#room = this.#view.clientHeight;
  }

  #below(element: Element): number {
    return element.getBoundingClientRect().top - this.#view.getBoundingClientRect().top;
  }
}
