ALTER TABLE bots DROP COLUMN escalation;
