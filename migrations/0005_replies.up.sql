-- How an answer ended, when it is not simply whole, and who counted what it took.

ALTER TABLE messages
  -- NULL: the answer is whole, or the message is no answer.
  ADD COLUMN cut text CONSTRAINT messages_cut_check CHECK (cut IN ('length')),
  -- Counted by the server, because the model did not tell.
  ADD COLUMN usage_estimated boolean NOT NULL DEFAULT false;
GRANT SELECT (cut, usage_estimated) ON messages TO hubbub_writer;

ALTER TABLE replies
  -- What became of the answer; NULL where no model answered, or the reply did not fail.
  ADD COLUMN reason text
    CONSTRAINT replies_reason_check CHECK (reason IN ('cut', 'filtered', 'empty', 'too_long')),
  ADD COLUMN usage_estimated boolean NOT NULL DEFAULT false,
  ADD CONSTRAINT replies_reason_failed_check CHECK (reason IS NULL OR state = 'failed');
GRANT UPDATE (reason, usage_estimated) ON replies TO hubbub_writer;
