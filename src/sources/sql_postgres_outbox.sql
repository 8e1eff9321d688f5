-- fanwire for Postgres, outbox mode, version 1 (Postgres 13 or later).
--
-- Install or upgrade:  fanwire sql postgres --mode outbox | psql -1 -v ON_ERROR_STOP=1 "$DATABASE_URL"
-- Remove:              fanwire sql postgres --uninstall | psql -1 -v ON_ERROR_STOP=1 "$DATABASE_URL"
--
-- Run it as a role that may create functions in schema public; run it again at will, also where the
-- SQL of another mode is installed: tables that are watched stay watched. Every role may publish with
-- what it installs:
--
--   SELECT fanwire_publish('todos', '{"op":"insert","id":7}');         -- text, json or jsonb
--   SELECT fanwire_publish('todos', to_jsonb(t), key => 'abc', client => 'k3x9') FROM todos t;
--   SELECT * FROM fanwire_status();
--   SELECT fanwire_prune('1 hour');                                    -- its owner
--
-- An event is a row of fanwire.outbox. It is delivered when the transaction commits, and never if it
-- does not; it stays for an hour (keep-for= in fanwire's URL), so that nothing is lost while fanwire
-- is away. All servers deliver in one order: by the transaction's id, then by the row's.
--
-- Each publishing transaction also wakes fanwire by NOTIFY, for which commits queue behind one lock of
-- the whole cluster. Where that costs too much, ALTER DATABASE app SET fanwire.notify = off: fanwire
-- then polls.

DO $fanwire$
BEGIN
    IF current_setting('server_version_num')::integer < 130000 THEN
        RAISE EXCEPTION 'fanwire''s outbox mode needs Postgres 13 or later, this is %',
            current_setting('server_version')
            USING HINT = 'Notify mode works with Postgres 12: fanwire sql postgres';
    END IF;
END
$fanwire$;

\ir sql_postgres_installation.sql

-- Of an earlier time: what was published since is not in it.
DO $fanwire$
BEGIN
    IF NOT EXISTS (SELECT FROM fanwire.installation WHERE mode = 'outbox') THEN
        DROP TABLE IF EXISTS fanwire.outbox, fanwire.outbox_state;
    END IF;
END
$fanwire$;

SET fanwire.installing = 'outbox';
\ir sql_postgres_mode.sql

-- Rows come at one end and go at the other: vacuum by number, not by share.
CREATE TABLE IF NOT EXISTS fanwire.outbox (
    xid     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    id      bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    channel text NOT NULL,
    payload text NOT NULL,
    enc     text CHECK (enc = 'base64'),  -- how the payload is written, where it is no text
    key     text,
    client  text,                         -- arrives as "from"
    created timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (xid, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
COMMENT ON TABLE fanwire.outbox IS
    'Events; written by fanwire_publish(), removed by fanwire_prune() only';

-- Which stream the positions (xid, id) belong to, and up to where it was pruned: always in the
-- transaction that removes the rows, so that a reader sees both or neither.
CREATE TABLE IF NOT EXISTS fanwire.outbox_state (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    id        uuid NOT NULL DEFAULT gen_random_uuid(),
    floor_xid xid8 NOT NULL DEFAULT '0',
    floor_id  bigint NOT NULL DEFAULT 1,
    keep      interval DEFAULT '1 hour'   -- by keep-for= of a server; null: all
);
COMMENT ON TABLE fanwire.outbox_state IS
    'The outbox''s identity, the last row that was pruned, how long rows are kept; one row';
INSERT INTO fanwire.outbox_state DEFAULT VALUES ON CONFLICT (singleton) DO NOTHING;

-- Without a limit of its own: what is larger than 1/16 of fanwire's log becomes a gap there.
CREATE OR REPLACE FUNCTION fanwire.append(
    channel text, payload text, key text, client text, enc text, OUT xid xid8, OUT id bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    IF (octet_length(convert_to(channel, 'UTF8')) BETWEEN 1 AND 255
        AND channel COLLATE "C" !~ E'[\\x01-\\x1f\\x7f]' AND left(channel, 9) <> '$fanwire/'
        AND payload IS NOT NULL
        AND (key IS NULL OR octet_length(convert_to(key, 'UTF8')) BETWEEN 1 AND 255)
        AND (client IS NULL OR octet_length(convert_to(client, 'UTF8')) <= 64)
        AND (getdatabaseencoding() = 'UTF8' OR convert_to(payload, 'UTF8') IS NOT NULL)) IS NOT TRUE THEN
        PERFORM fanwire.refuse_event(channel, payload, key, client);
    END IF;
    INSERT INTO fanwire.outbox AS o (channel, payload, enc, key, client)
    VALUES (append.channel, append.payload, append.enc, append.key, append.client)
    RETURNING o.xid, o.id INTO append.xid, append.id;
    IF current_setting('fanwire.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('fanwire', 'outbox'); -- once per transaction: Postgres merges equal ones
    END IF;
END
$fanwire$;

-- What fanwire itself publishes: 0x1E, a JSON object of names, LF, the payload.
CREATE OR REPLACE FUNCTION fanwire.publish_event(event text, OUT xid xid8, OUT id bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    head_end integer := strpos(event, chr(10));
    head json := substr(event, 2, head_end - 2)::json;
BEGIN
    SELECT a.xid, a.id INTO publish_event.xid, publish_event.id
    FROM fanwire.append(head ->> 'channel', substr(event, head_end + 1), head ->> 'key',
                        head ->> 'from', head ->> 'enc') a;
END
$fanwire$;

-- Who publishes needs this function and no right to the tables.
CREATE OR REPLACE FUNCTION public.fanwire_publish(
    channel text, payload text, key text DEFAULT NULL, client text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    PERFORM fanwire.append(channel, payload, key, client, NULL);
END
$fanwire$;

\ir sql_postgres_overloads.sql

-- Row changes have no limit of size either; see fanwire_watch(). (All arguments with their types: no
-- function that somebody else adds to schema public fits better.)
CREATE OR REPLACE FUNCTION fanwire.publish_row(channel text, event jsonb)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    told jsonb := CASE WHEN getdatabaseencoding() = 'UTF8' THEN event ELSE fanwire.in_utf8(event) END;
BEGIN
    IF told IS NULL OR NOT fanwire.is_channel(channel) THEN
        RAISE WARNING 'fanwire_watch: a change of % has no valid channel or no UTF-8 form and is not published: %',
            event ->> 'table', left(to_json(channel)::text, 300);
    ELSE
        PERFORM public.fanwire_publish(channel, told::text, NULL::text, NULL::text);
    END IF;
END
$fanwire$;

-- Removes up to n of the oldest rows, as far as they are older than `older` (null: as the outbox is to
-- keep them); how many. No row comes
-- below the horizon (the oldest open transaction) any more, so what was removed is a beginning, and
-- `floor` tells all of it.
CREATE OR REPLACE FUNCTION fanwire.prune_batch(older interval, n integer)
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    before timestamptz;
    last_xid xid8;
    last_id bigint;
    removed integer;
BEGIN
    -- Above the floor: what was removed stays in the index until it is vacuumed.
    SELECT s.floor_xid, s.floor_id, clock_timestamp() - coalesce(older, s.keep)
    INTO last_xid, last_id, before FROM fanwire.outbox_state s;
    IF NOT coalesce((SELECT o.created < before FROM fanwire.outbox o
                     WHERE (o.xid, o.id) > (last_xid, last_id)
                       AND o.xid < pg_snapshot_xmin(pg_current_snapshot())
                     ORDER BY o.xid, o.id LIMIT 1), false) THEN
        RETURN 0; -- as a rule, and nothing was written
    END IF;
    SELECT s.floor_xid, s.floor_id INTO last_xid, last_id
    FROM fanwire.outbox_state s FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0; -- another server is at it
    END IF;
    PERFORM set_config('fanwire.pruning', 'on', true);
    WITH oldest AS MATERIALIZED (
        SELECT o.ctid AS place, o.xid, o.id, o.created FROM fanwire.outbox o
        WHERE (o.xid, o.id) > (last_xid, last_id)
          AND o.xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY o.xid, o.id LIMIT n
    ), old AS (
        SELECT o.place, bool_and(o.created < before)
               OVER (ORDER BY o.xid, o.id ROWS UNBOUNDED PRECEDING) AS all_old FROM oldest o
    ), gone AS (
        DELETE FROM fanwire.outbox o
        WHERE o.ctid = ANY (ARRAY(SELECT old.place FROM old WHERE old.all_old))
        RETURNING o.xid, o.id
    )
    SELECT g.xid, g.id, count(*) OVER () INTO last_xid, last_id, removed
    FROM gone g ORDER BY g.xid DESC, g.id DESC LIMIT 1;
    UPDATE fanwire.outbox_state s SET floor_xid = last_xid, floor_id = last_id
    WHERE removed > 0;
    PERFORM set_config('fanwire.pruning', 'off', true);
    RETURN coalesce(removed, 0);
END
$fanwire$;

CREATE OR REPLACE FUNCTION public.fanwire_prune(keep interval)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    removed integer;
    total bigint := 0;
BEGIN
    LOOP
        removed := fanwire.prune_batch(keep, 10000);
        total := total + removed;
        EXIT WHEN removed < 10000;
    END LOOP;
    RETURN total;
END
$fanwire$;

-- The stream begins anew, for every reader, unless another has made it so: after an older copy of
-- the database was put back. Rows of transactions that this cluster has not had yet came with it.
CREATE OR REPLACE FUNCTION fanwire.renew_outbox(known uuid)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    PERFORM set_config('fanwire.pruning', 'on', true);
    UPDATE fanwire.outbox_state s SET id = gen_random_uuid(), floor_xid = '0', floor_id = 1
    WHERE s.id = known;
    DELETE FROM fanwire.outbox o WHERE o.xid >= pg_snapshot_xmax(pg_current_snapshot());
    PERFORM set_config('fanwire.pruning', 'off', true);
END
$fanwire$;

-- TRUNCATE and DELETE by hand: what was not read yet is not known.
CREATE OR REPLACE FUNCTION fanwire.on_removed()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    IF current_setting('fanwire.pruning', true) = 'on' THEN
        RETURN NULL;
    ELSIF TG_OP = 'DELETE' THEN
        IF NOT EXISTS (SELECT FROM gone) THEN
            RETURN NULL;
        END IF;
    END IF;
    UPDATE fanwire.outbox_state SET id = gen_random_uuid(), floor_xid = '0', floor_id = 1;
    PERFORM pg_notify('fanwire', 'outbox');
    RETURN NULL;
END
$fanwire$;
DROP TRIGGER IF EXISTS removed_by_hand ON fanwire.outbox;
CREATE TRIGGER removed_by_hand AFTER DELETE ON fanwire.outbox REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION fanwire.on_removed();
DROP TRIGGER IF EXISTS truncated ON fanwire.outbox;
CREATE TRIGGER truncated AFTER TRUNCATE ON fanwire.outbox
    FOR EACH STATEMENT EXECUTE FUNCTION fanwire.on_removed();

COMMENT ON FUNCTION public.fanwire_prune(interval) IS
    'Removes events that are older; fanwire does it by itself (keep-for=)';

GRANT EXECUTE ON FUNCTION fanwire.publish_row(text, jsonb) TO PUBLIC;
