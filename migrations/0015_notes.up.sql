-- What operators write for each other. A note has no number, so that a visitor's numbering has no hole.
CREATE TABLE notes (
  tenant_id  uuid NOT NULL,
  session_id uuid NOT NULL,
  -- The writer's own id, and how it is written.
  id          uuid NOT NULL,
  id_spelling int8 NOT NULL,
  -- The message it was written after.
  follows    int8 NOT NULL CHECK (follows >= 0),
  author_id  text NOT NULL,
  author     text NOT NULL,
  body       text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, session_id, id),
  CONSTRAINT notes_session_fkey FOREIGN KEY (tenant_id, session_id) REFERENCES sessions ON DELETE CASCADE
);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE notes FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON notes TO hubbub_app
  USING (tenant_id = (SELECT nullif(current_setting('app.tenant_id', true), '')::uuid));
GRANT SELECT, INSERT ON notes TO hubbub_app;
