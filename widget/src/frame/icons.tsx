// The frame's few icons, drawn with the current text colour.

import { h } from "preact";

function icon(path: string) {
  return () => (
    <svg viewBox="0 0 24 24" width="20" height="20" aria-hidden="true" focusable="false">
      <path
        d={path}
        fill="none"
        stroke="currentColor"
        stroke-width="1.8"
        stroke-linecap="round"
        stroke-linejoin="round"
      />
    </svg>
  );
}

export const SendIcon = icon("M12 19V5m-6 6 6-6 6 6");
export const StopIcon = icon("M8 8h8v8H8z");
export const NewIcon = icon("M12 5v14M5 12h14");
export const CloseIcon = icon("m6 9 6 6 6-6");
export const DownIcon = icon("M12 5v14m-6-6 6 6 6-6");
