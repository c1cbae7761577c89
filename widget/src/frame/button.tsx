// The two kinds of buttons: a picture with a name, and words within a line.

import { type ComponentChildren, h } from "preact";

interface Props {
  label: string;
  class: string;
  disabled?: boolean;
  onClick?(): void;
  children: ComponentChildren;
}

/** A picture, named for whoever cannot see it and for whoever wonders. */
export function IconButton({ label, ...rest }: Props) {
  return (
    <button type={rest.onClick ? "button" : "submit"} aria-label={label} title={label} {...rest} />
  );
}

export function textButton(label: string, onClick: () => void) {
  return (
    <button type="button" onClick={onClick}>
      {label}
    </button>
  );
}
