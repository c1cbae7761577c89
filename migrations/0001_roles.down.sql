-- The roles stay: other databases of the cluster may use them, and passwords set on them would be lost.
REVOKE SELECT ON hubbub_migrations FROM hubbub_app;
REVOKE USAGE ON SCHEMA public FROM hubbub_app, hubbub_writer, hubbub_lookup;
