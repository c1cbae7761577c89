-- What the operator who gave a session back to the bot last tells the bot.
ALTER TABLE sessions ADD COLUMN summary text;
GRANT UPDATE (summary) ON sessions TO hubbub_app;
