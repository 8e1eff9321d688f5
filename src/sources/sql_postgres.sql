-- fanwire for Postgres, notify mode, version 1 (Postgres 12 or later).
--
-- Install or upgrade:  fanwire sql postgres | psql -1 -v ON_ERROR_STOP=1 "$DATABASE_URL"
-- Remove:              fanwire sql postgres --uninstall | psql -1 -v ON_ERROR_STOP=1 "$DATABASE_URL"
--
-- Run it as a role that may create functions in schema public; run it again at will, also where the
-- SQL of another mode is installed: tables that are watched stay watched. Every role may use what it
-- installs:
--
--   SELECT fanwire_publish('todos', '{"op":"insert","id":7}');         -- text, json or jsonb
--   SELECT fanwire_publish('todos', to_jsonb(t), key => 'abc', client => 'k3x9') FROM todos t;
--   SELECT * FROM fanwire_status();
--
-- An event is delivered when the transaction commits, and never if it does not. An event takes at
-- most 7999 bytes together with its channel. Two events with the same channel and payload in one
-- transaction are delivered as one: Postgres merges equal notifications.

\ir sql_postgres_installation.sql

SET fanwire.installing = 'notify';
\ir sql_postgres_mode.sql

CREATE OR REPLACE FUNCTION public.fanwire_publish(
    channel text, payload text, key text DEFAULT NULL, client text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    event text;
BEGIN
    IF (octet_length(convert_to(channel, 'UTF8')) BETWEEN 1 AND 255
        AND channel COLLATE "C" !~ E'[\\x01-\\x1f\\x7f]' AND left(channel, 9) <> '$fanwire/'
        AND payload IS NOT NULL
        AND (key IS NULL OR octet_length(convert_to(key, 'UTF8')) BETWEEN 1 AND 255)
        AND (client IS NULL OR octet_length(convert_to(client, 'UTF8')) <= 64)
        AND (getdatabaseencoding() = 'UTF8' OR convert_to(payload, 'UTF8') IS NOT NULL)) IS NOT TRUE THEN
        PERFORM fanwire.refuse_event(channel, payload, key, client);
    END IF;
    event := chr(30)
        || json_strip_nulls(json_build_object('channel', channel, 'key', key, 'from', client))::text
        || chr(10) || payload;
    IF octet_length(event) > 7999 THEN
        RAISE EXCEPTION 'fanwire_publish: in notify mode an event has at most 7999 bytes, this one % (payload %)',
            octet_length(event), octet_length(payload)
            USING ERRCODE = 'program_limit_exceeded',
                  HINT = 'Publish a reference and let readers fetch the rest, or use fanwire''s outbox or wal mode, which have no such limit.';
    END IF;
    -- With a number, which it gets anyway, the transaction can be waited for when another mode is
    -- installed.
    PERFORM txid_current(), pg_notify('fanwire', event);
END
$fanwire$;

\ir sql_postgres_overloads.sql

-- A row's change (fanwire_watch() below). One that is too large for NOTIFY carries the key and
-- "partial":true instead; the writer's statement never fails for it.
-- (All arguments with their types: no function that somebody else adds to schema public fits better.)
CREATE OR REPLACE FUNCTION fanwire.publish_row(channel text, event jsonb)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    room integer := 7999 - 2 - octet_length(json_build_object('channel', channel)::text);
    told jsonb := CASE WHEN getdatabaseencoding() = 'UTF8' THEN event ELSE fanwire.in_utf8(event) END;
    identity jsonb := told - 'row' - 'old' || '{"partial": true}';
BEGIN
    IF told IS NULL OR NOT fanwire.is_channel(channel) THEN
        RAISE WARNING 'fanwire_watch: a change of % has no valid channel or no UTF-8 form and is not published: %',
            event ->> 'table', left(to_json(channel)::text, 300);
    ELSIF octet_length(told::text) <= room THEN
        PERFORM public.fanwire_publish(channel, told::text, NULL::text, NULL::text);
    ELSIF octet_length(identity::text) <= room THEN
        PERFORM public.fanwire_publish(channel, identity::text, NULL::text, NULL::text);
    ELSE
        PERFORM public.fanwire_publish(channel, (identity - 'key')::text, NULL::text, NULL::text);
    END IF;
END
$fanwire$;
GRANT EXECUTE ON FUNCTION fanwire.publish_row(text, jsonb) TO PUBLIC;

