-- fanwire for Postgres, wal mode, version 1 (Postgres 14 or later, wal_level = logical).
--
-- Install or upgrade:  fanwire sql postgres --mode wal | psql -1 -v ON_ERROR_STOP=1 "$DATABASE_URL"
-- Remove:              fanwire sql postgres --uninstall | psql -1 -v ON_ERROR_STOP=1 "$DATABASE_URL"
--
-- Run it as a role that may create a schema and a publication in the database and functions in
-- schema public; run it again at will, also where the SQL of another mode is installed: tables that
-- are watched stay watched. Every role may use what it installs:
--
--   SELECT fanwire_publish('todos', '{"op":"insert","id":7}');         -- text, json or jsonb
--   SELECT fanwire_publish('todos', to_jsonb(t), key => 'abc', client => 'k3x9') FROM todos t;
--   SELECT * FROM fanwire_status();
--
-- An event is written into the write-ahead log (pg_logical_emit_message); it is delivered when the
-- transaction commits, and never if it does not. "fanwire serve" reads it there by a replication slot
-- that it makes itself.

DO $fanwire$
BEGIN
    IF current_setting('server_version_num')::integer < 140000 THEN
        RAISE EXCEPTION 'fanwire''s wal mode needs Postgres 14 or later, this is %',
            current_setting('server_version')
            USING HINT = 'Install another mode: fanwire sql postgres --mode outbox';
    ELSIF current_setting('wal_level') <> 'logical' THEN
        RAISE WARNING 'wal_level is "%": fanwire_publish() will refuse until it is "logical"',
            current_setting('wal_level')
            USING HINT = 'ALTER SYSTEM SET wal_level = logical, then restart the server.';
    END IF;
END
$fanwire$;

\ir sql_postgres_installation.sql

SET fanwire.installing = 'wal';
\ir sql_postgres_mode.sql

-- The message is bytes in the log, never converted: always UTF-8. All that is checked is one
-- expression, and names say their schema instead of SET search_path: a third of the time of a call.
CREATE OR REPLACE FUNCTION public.fanwire_publish(
    channel text, payload text, key text DEFAULT NULL, client text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
AS $fanwire$
BEGIN
    IF (pg_catalog.octet_length(pg_catalog.convert_to(channel, 'UTF8')) BETWEEN 1 AND 255
        AND channel OPERATOR(pg_catalog.!~) (E'[\\x01-\\x1f\\x7f]' COLLATE pg_catalog."C")
        AND NOT pg_catalog.starts_with(channel, '$fanwire/') AND payload IS NOT NULL
        AND (key IS NULL OR pg_catalog.octet_length(pg_catalog.convert_to(key, 'UTF8')) BETWEEN 1 AND 255)
        AND (client IS NULL OR pg_catalog.octet_length(pg_catalog.convert_to(client, 'UTF8')) OPERATOR(pg_catalog.<=) 64)
        AND pg_catalog.current_setting('wal_level') OPERATOR(pg_catalog.=) 'logical') IS NOT TRUE THEN
        IF pg_catalog.current_setting('wal_level') OPERATOR(pg_catalog.<>) 'logical' THEN
            RAISE EXCEPTION 'fanwire_publish: nobody could read the event: wal_level is "%"',
                pg_catalog.current_setting('wal_level')
                USING ERRCODE = 'object_not_in_prerequisite_state',
                      HINT = 'ALTER SYSTEM SET wal_level = logical, then restart the server; or install another mode: fanwire sql postgres --mode outbox';
        END IF;
        PERFORM fanwire.refuse_event(channel, payload, key, client);
    END IF;
    PERFORM pg_catalog.pg_logical_emit_message(true, 'fanwire', pg_catalog.convert_to(
        CASE WHEN key IS NULL AND client IS NULL
        THEN pg_catalog.concat(E'\x1e{"channel":', pg_catalog.to_json(channel), E'}\n', payload)
        ELSE pg_catalog.concat(E'\x1e', pg_catalog.json_strip_nulls(pg_catalog.json_build_object(
            'channel', channel, 'key', key, 'from', client)), E'\n', payload)
        END, 'UTF8'));
END
$fanwire$;

\ir sql_postgres_overloads.sql
