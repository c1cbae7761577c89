ALTER TABLE bots DROP COLUMN answer_cache_s;
