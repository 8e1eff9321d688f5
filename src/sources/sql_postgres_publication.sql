-- Row changes: SELECT fanwire_watch('todos', 'todos:{list_id}');
--
-- From then on each INSERT, UPDATE and DELETE of the table is an event when its transaction commits,
--   {"op":"update","table":"public.todos","key":{"id":7},"row":{…},"old":{…},"tx":"7413"}
-- in the channel that the template makes of the row: {column} stands for the column's value. An
-- update that moves a row to another channel is told to both. Nothing runs at the writer: fanwire
-- takes the changes out of the write-ahead log, by the publication "fanwire".
--
-- A table may have any number of templates; each is told. The same template again replaces its own
-- columns only. SELECT * FROM fanwire.watched lists them, fanwire_unwatch('todos', 'todos:{list_id}')
-- ends one, fanwire_unwatch('todos') all.

-- What is watched. The table is in the publication itself, so that the reader learns of a change
-- where it stands among the changes of rows. What has ended stays for a while: a reader that begins
-- further back in the log needs it. `id` is part of events' positions. `relation` is `tbl` as a number,
-- which is what the log tells; a dump carries the table's name instead, so that after a restore `tbl`
-- is right and `relation` is that of the former database until fanwire_watch() or this SQL mends it.
-- What is not in the publication is not watched: a row of a table that was gone when it was dumped may
-- have the number of another one now.
CREATE TABLE IF NOT EXISTS fanwire.watching (
    id       integer GENERATED ALWAYS AS IDENTITY,
    relation oid NOT NULL,
    tbl      regclass NOT NULL,
    channel  text NOT NULL,
    columns  text[],
    keys     text[],
    ended    timestamptz,
    identity "char", -- the table's replica identity before fanwire_watch() has changed it
    PRIMARY KEY (relation, channel)
);
DO $fanwire$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_attribute
                   WHERE attrelid = to_regclass('fanwire.watching') AND attname = 'tbl') THEN
        ALTER TABLE fanwire.watching ADD COLUMN tbl regclass; -- an earlier form
        UPDATE fanwire.watching SET tbl = relation;
        ALTER TABLE fanwire.watching ALTER COLUMN tbl SET NOT NULL;
    END IF;
END
$fanwire$;
COMMENT ON TABLE fanwire.watching IS 'What fanwire_watch() has set up; see the view fanwire.watched';

CREATE OR REPLACE VIEW fanwire.watched AS
    SELECT w.tbl, w.channel, w.columns
    FROM fanwire.watching w JOIN pg_catalog.pg_publication_rel r ON r.prrelid = w.tbl
    JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid AND p.pubname = 'fanwire'
    WHERE w.ended IS NULL;
COMMENT ON VIEW fanwire.watched IS
    'What fanwire_watch() has set up: a row for each table and template';

DO $fanwire$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = 'fanwire') THEN
        CREATE PUBLICATION fanwire FOR TABLE fanwire.watching
            WITH (publish_via_partition_root = true);
    END IF;
END
$fanwire$;

-- After a restored dump: the numbers of the tables that are here now. What is in the way of them ended
-- in the former database, or was a table that is gone.
CREATE OR REPLACE FUNCTION fanwire.renumber()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    IF EXISTS (SELECT FROM fanwire.watching w WHERE w.relation <> w.tbl) THEN
        UPDATE fanwire.watching w SET relation = 0, channel = w.id || ' ' || w.channel
        WHERE w.relation <> w.tbl;
        UPDATE fanwire.watching w SET relation = w.tbl, channel = substr(w.channel, strpos(w.channel, ' ') + 1)
        WHERE w.relation = 0;
    END IF;
END
$fanwire$;
SELECT fanwire.renumber();

CREATE OR REPLACE FUNCTION fanwire.set_identity(tbl regclass, identity "char")
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT tbl UNION SELECT relid FROM pg_partition_tree(tbl) LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY %s', part,
                       CASE identity WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE 'DEFAULT' END);
    END LOOP;
END
$fanwire$;

-- Sees to it that the log has of an old row what its channel is made of: else changes of a table
-- without a key would even fail. Returns the replica identity of before, null if it was enough.
CREATE OR REPLACE FUNCTION fanwire.make_identity(tbl regclass, channel text)
RETURNS "char"
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    before "char" := (SELECT relreplident FROM pg_class WHERE oid = tbl);
    held text[];
BEGIN
    SELECT array_agg(a.attname::text) INTO held
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = tbl AND CASE before WHEN 'd' THEN i.indisprimary
                                           WHEN 'i' THEN i.indisreplident ELSE false END;
    IF before = 'f' OR held @> ARRAY(SELECT (regexp_matches(channel, '\{([^{}]+)\}', 'g'))[1]) THEN
        RETURN NULL;
    END IF;
    RAISE NOTICE 'fanwire_watch: % gets REPLICA IDENTITY FULL: its events need columns outside its key',
        tbl;
    PERFORM fanwire.set_identity(tbl, 'f');
    RETURN before;
END
$fanwire$;

DROP FUNCTION IF EXISTS public.fanwire_unwatch(regclass); -- an earlier form
CREATE OR REPLACE FUNCTION public.fanwire_unwatch(tbl regclass, channel text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    before "char";
BEGIN
    PERFORM fanwire.renumber();
    UPDATE fanwire.watching w SET ended = clock_timestamp()
    WHERE w.relation = fanwire_unwatch.tbl AND w.ended IS NULL
      AND (fanwire_unwatch.channel IS NULL OR w.channel = fanwire_unwatch.channel);
    IF NOT FOUND THEN
        RAISE NOTICE 'fanwire_unwatch: % is not watched%', tbl,
            coalesce(' as ' || to_json(channel)::text, '');
    ELSIF NOT EXISTS (SELECT FROM fanwire.watching w
                      WHERE w.relation = fanwire_unwatch.tbl AND w.ended IS NULL) THEN
        EXECUTE format('ALTER PUBLICATION fanwire DROP TABLE ONLY %s', tbl);
        SELECT w.identity INTO before FROM fanwire.watching w
        WHERE w.relation = fanwire_unwatch.tbl AND w.identity IS NOT NULL LIMIT 1;
        IF before IS NOT NULL THEN
            PERFORM fanwire.set_identity(tbl, before);
            UPDATE fanwire.watching w SET identity = NULL
            WHERE w.relation = fanwire_unwatch.tbl;
        END IF;
    END IF;
END
$fanwire$;

CREATE OR REPLACE FUNCTION public.fanwire_watch(
    tbl regclass, channel text, columns text[] DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    name text := fanwire.check_watch(tbl, channel, columns);
    keys text[];
    before "char";
BEGIN
    SELECT array_agg(a.attname::text ORDER BY a.attnum) INTO keys
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = tbl AND i.indisprimary;

    PERFORM fanwire.renumber();
    DELETE FROM fanwire.watching w
    WHERE w.ended < now() - interval '30 days';
    before := fanwire.make_identity(tbl, channel);
    IF NOT EXISTS (SELECT FROM pg_publication p JOIN pg_publication_rel r ON r.prpubid = p.oid
                   WHERE p.pubname = 'fanwire' AND r.prrelid = tbl) THEN
        UPDATE fanwire.watching w SET ended = clock_timestamp()
        WHERE w.relation = fanwire_watch.tbl AND w.ended IS NULL;
        EXECUTE format('ALTER PUBLICATION fanwire ADD TABLE ONLY %s', tbl);
    END IF;
    INSERT INTO fanwire.watching AS w (relation, tbl, channel, columns, keys, identity)
    VALUES (tbl, tbl, channel, columns, keys, before)
    ON CONFLICT ON CONSTRAINT watching_pkey DO UPDATE
    SET columns = excluded.columns, keys = excluded.keys, ended = NULL,
        identity = coalesce(w.identity, excluded.identity);
END
$fanwire$;

-- What was watched by triggers, in another mode, goes on by the publication.
DO $fanwire$
DECLARE
    other record;
BEGIN
    IF to_regclass('fanwire.watch_triggers') IS NULL THEN
        RETURN;
    END IF;
    FOR other IN EXECUTE 'SELECT tbl, channel, columns FROM fanwire.watch_triggers WHERE for_rows'
    LOOP
        PERFORM public.fanwire_watch(other.tbl, other.channel, other.columns);
    END LOOP;
    DROP VIEW fanwire.watch_triggers;
    DROP FUNCTION IF EXISTS fanwire.on_change() CASCADE; -- with its triggers
    DROP FUNCTION IF EXISTS fanwire.drop_triggers(regclass, text),
        fanwire.trigger_argument(bytea, integer), fanwire.publish_row(text, jsonb),
        fanwire.columns_of(jsonb, text[]), fanwire.channel_of(text, jsonb),
        fanwire.is_channel(text), fanwire.is_plain(regclass),
        fanwire.columns_singly(anyelement, text[]);
END
$fanwire$;

COMMENT ON FUNCTION public.fanwire_watch(regclass, text, text[]) IS
    'Publishes each change of the table''s rows to the channel that the template makes of the row';
COMMENT ON FUNCTION public.fanwire_unwatch(regclass, text) IS
    'Ends what fanwire_watch() began: one template of the table, or all';
GRANT SELECT ON fanwire.watching, fanwire.watched TO PUBLIC;
GRANT EXECUTE ON FUNCTION fanwire.renumber(), fanwire.set_identity(regclass, "char"),
    fanwire.make_identity(regclass, text), public.fanwire_watch(regclass, text, text[]),
    public.fanwire_unwatch(regclass, text) TO PUBLIC;
