ALTER TABLE replies
  DROP COLUMN usage_estimated,
  DROP COLUMN reason;
ALTER TABLE messages
  DROP COLUMN usage_estimated,
  DROP COLUMN cut;
