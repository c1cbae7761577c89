// What the host page's loader and the frame tell each other, window to window.

export type FromHost = { hubbub: "opened" | "closed"; theme?: string };
export type ToHost = { hubbub: "ready" | "close" | "unread" };
