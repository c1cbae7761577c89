-- When a bot's session is handed to a person by itself: {"keywords": […], "after_failures": n}.
ALTER TABLE bots ADD COLUMN escalation jsonb NOT NULL DEFAULT '{}'
  CONSTRAINT bots_escalation_check CHECK (jsonb_typeof(escalation) = 'object');
