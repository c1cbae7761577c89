-- For how many seconds the answer to a conversation's first question is given to whoever asks the same; 0: never.
ALTER TABLE bots ADD COLUMN answer_cache_s int4 NOT NULL DEFAULT 0
  CONSTRAINT bots_answer_cache_check CHECK (answer_cache_s BETWEEN 0 AND 86400);
