
-- Row changes: SELECT fanwire_watch('todos', 'todos:{list_id}');
--
-- From then on each INSERT, UPDATE and DELETE of the table publishes, when its transaction commits,
--   {"op":"update","table":"public.todos","key":{"id":7},"row":{…},"old":{…},"tx":"7413"}
-- to the channel that the template makes of the row: {column} stands for the column's value. An
-- update that moves a row to another channel is told to both. What an event costs, and what becomes
-- of one that is too large, is the mode's: fanwire.publish_row().
--
-- A table may have any number of templates; each is told. The same template again replaces its own
-- columns only. SELECT * FROM fanwire.watched lists them, fanwire_unwatch('todos', 'todos:{list_id}')
-- ends one, fanwire_unwatch('todos') all.

CREATE OR REPLACE FUNCTION fanwire.channel_of(template text, changed jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
    SELECT CASE WHEN bool_and(part[2] IS NULL OR changed ->> part[2] IS NOT NULL)
                THEN string_agg(coalesce(part[1], changed ->> part[2]), '' ORDER BY place) END
    FROM regexp_matches(template, '([^{}]+)|[{]([^{}]+)[}]', 'g') WITH ORDINALITY AS p(part, place)
$fanwire$;
COMMENT ON FUNCTION fanwire.channel_of(text, jsonb) IS
    'The channel of a row by its template; null where a column that it names is null';

CREATE OR REPLACE FUNCTION fanwire.columns_of(changed jsonb, columns text[])
RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
    SELECT CASE WHEN columns IS NULL THEN changed
                ELSE (SELECT coalesce(jsonb_object_agg(e.key, e.value), '{}') FROM jsonb_each(changed) e
                      WHERE e.key = ANY (columns)) END
$fanwire$;

-- In UTF-8, as events travel, whatever the database's encoding is.
CREATE OR REPLACE FUNCTION fanwire.is_channel(channel text)
RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    IF channel COLLATE "C" ~ '^[ -~]{1,255}$' THEN
        RETURN left(channel, 9) <> '$fanwire/';
    END IF;
    BEGIN
        RETURN octet_length(convert_to(channel, 'UTF8')) BETWEEN 1 AND 255
            AND left(channel, 9) <> '$fanwire/' AND channel COLLATE "C" !~ E'[\\x01-\\x1f\\x7f]';
    EXCEPTION WHEN OTHERS THEN
        RETURN false; -- what UTF-8 cannot say
    END;
END
$fanwire$;

-- These columns one by one, as text where to_jsonb() fails; without those that have none either.
CREATE OR REPLACE FUNCTION fanwire.columns_singly(changed anyelement, names text[])
RETURNS jsonb
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    name text;
    form text;
    value jsonb;
    found jsonb := '{}';
BEGIN
    FOREACH name IN ARRAY names LOOP
        FOREACH form IN ARRAY ARRAY['SELECT to_jsonb(($1).%I)', 'SELECT to_jsonb(($1).%I::text)'] LOOP
            BEGIN
                EXECUTE format(form, name) INTO value USING changed;
                found := found || jsonb_build_object(name, value);
                EXIT;
            EXCEPTION WHEN OTHERS THEN
                NULL;
            END;
        END LOOP;
    END LOOP;
    RETURN found;
END
$fanwire$;

-- Can to_jsonb() fail for a value of the table? With a column of type json, or one that holds such or
-- that casts itself to json.
CREATE OR REPLACE FUNCTION fanwire.is_plain(tbl regclass)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
    SELECT coalesce(bool_and(CASE e.typtype
        WHEN 'e' THEN NOT EXISTS (SELECT FROM pg_cast c WHERE c.castsource = e.oid
                                  AND c.casttarget IN ('json'::regtype, 'jsonb'::regtype))
        WHEN 'b' THEN e.typnamespace = 'pg_catalog'::regnamespace AND e.oid <> 'json'::regtype
        ELSE e.typnamespace = 'pg_catalog'::regnamespace AND e.typtype IN ('r', 'm') END), true)
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    JOIN pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
    JOIN pg_type e ON e.oid = CASE b.typcategory WHEN 'A' THEN b.typelem ELSE b.oid END
    WHERE a.attrelid = tbl AND a.attnum > 0 AND NOT a.attisdropped
$fanwire$;

-- Warns of columns that a template, its columns or the key name and that the row does not have, having been
-- renamed or dropped: once in a transaction. Fails nobody's write.
CREATE OR REPLACE FUNCTION fanwire.warn_of_columns(
    relation regclass, template text, changed jsonb, names text[])
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    missing text := (SELECT string_agg(DISTINCT name, ', ') FROM unnest(names) name
                     WHERE NOT changed ? name);
    once text := 'fanwire.warned_' || md5(relation::oid || template);
    watched regclass;
BEGIN
    IF missing IS NULL OR current_setting(once, true) = txid_current()::text THEN
        RETURN;
    END IF;
    PERFORM set_config(once, txid_current()::text, true);
    SELECT w.tbl INTO watched FROM fanwire.watched w -- of a partition's row: which table is it?
    WHERE w.channel = template
      AND (w.tbl = relation OR w.tbl IN (SELECT relid FROM pg_partition_ancestors(relation)));
    RAISE WARNING 'fanwire_watch: changes of %, watched as %, cannot be told in full: it no longer has the column %',
        watched, to_json(template), missing
        USING HINT = format('End it by SELECT fanwire_unwatch(%L, %L), and call fanwire_watch() with the names that the table has now.',
                            watched, template);
END
$fanwire$;

-- Arguments: template, columns, key columns (both as text[]; '' = none), the table's name, 'plain' if
-- the table was when it began to be watched.
--
-- The writer's statement must not fail for what jsonb cannot hold (a json column with \u0000 or
-- 1e1000000 in it): then the event tells the key, and is partial. The block that sees to it takes as
-- long as two thirds of all the rest, so plain tables do without.
--
-- With the rights of the writer, always: to_jsonb() calls casts to json, which are the table's own.
CREATE OR REPLACE FUNCTION fanwire.on_change()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    template text := TG_ARGV[0];
    columns text[] := nullif(TG_ARGV[1], '');
    keys text[] := nullif(TG_ARGV[2], '');
    event jsonb := jsonb_build_object('op', lower(TG_OP), 'table', TG_ARGV[3],
                                      'tx', txid_current()::text);
    partial boolean := false; -- no row, no old
    lacking boolean := false; -- one of its columns is gone
    needed text[];
    new_row jsonb;
    old_row jsonb;
    new_channel text;
    old_channel text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        IF strpos(template, '{') = 0 THEN
            PERFORM fanwire.publish_row(template, event);
        END IF;
        RETURN NULL;
    ELSIF TG_ARGV[4] = 'plain' THEN
        new_row := to_jsonb(NEW);
        old_row := to_jsonb(OLD);
    ELSE
        BEGIN
            new_row := to_jsonb(NEW);
            old_row := to_jsonb(OLD);
        EXCEPTION WHEN OTHERS THEN
            partial := true;
            needed := fanwire.template_columns(template) || keys;
            new_row := CASE WHEN TG_OP <> 'DELETE' THEN fanwire.columns_singly(NEW, needed) END;
            old_row := CASE WHEN TG_OP <> 'INSERT' THEN fanwire.columns_singly(OLD, needed) END;
            IF NOT coalesce(new_row, old_row) ?& needed THEN
                RAISE WARNING 'fanwire_watch: a change of % cannot be told in full: %', TG_ARGV[3],
                    SQLERRM;
            END IF;
        END;
    END IF;
    IF partial THEN
        event := event || '{"partial": true}';
    ELSIF TG_OP = 'INSERT' THEN
        event := event || jsonb_build_object('row', fanwire.columns_of(new_row, columns));
    ELSIF TG_OP = 'DELETE' THEN
        event := event || jsonb_build_object('old', fanwire.columns_of(old_row, columns));
    ELSE
        event := event || jsonb_build_object('row', fanwire.columns_of(new_row, columns),
                                             'old', fanwire.columns_of(old_row, columns));
    END IF;
    IF NOT partial AND NOT coalesce(coalesce(new_row, old_row) ?& (columns || keys), true) THEN
        lacking := true;
        event := event || '{"partial": true}';
    END IF;
    IF keys IS NOT NULL THEN
        event := event || jsonb_build_object(
            'key', fanwire.columns_of(coalesce(new_row, old_row), keys));
    END IF;
    IF TG_OP <> 'DELETE' THEN
        new_channel := fanwire.channel_of(template, new_row);
    END IF;
    IF TG_OP <> 'INSERT' THEN
        old_channel := fanwire.channel_of(template, old_row);
    END IF;
    IF lacking OR NOT partial AND coalesce(new_channel, old_channel) IS NULL THEN
        PERFORM fanwire.warn_of_columns(TG_RELID, template, coalesce(new_row, old_row),
                                        fanwire.template_columns(template) || columns || keys);
    END IF;
    IF new_channel IS NOT NULL THEN
        PERFORM fanwire.publish_row(new_channel, event);
    END IF;
    IF old_channel IS NOT NULL AND old_channel IS DISTINCT FROM new_channel THEN
        PERFORM fanwire.publish_row(old_channel, event);
    END IF;
    RETURN NULL;
END
$fanwire$;

-- What is watched. In this mode the triggers are the truth: they go with their table, and whoever
-- may make them may watch. Their arguments stand in tgargs, each with a zero byte at its end; encode()
-- writes that as \000 and a backslash as two, here made \134 lest two and "000" look like a zero.
CREATE OR REPLACE FUNCTION fanwire.trigger_argument(arguments bytea, place integer)
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
    SELECT convert_from(decode(split_part(
        replace(encode(arguments, 'escape'), repeat(chr(92), 2), chr(92) || '134'),
        chr(92) || '000', place + 1), 'escape'), getdatabaseencoding())
$fanwire$;

-- Partitions have copies of their parent's triggers: those are not theirs to drop.
CREATE OR REPLACE VIEW fanwire.watch_triggers AS
    SELECT t.tgrelid::regclass AS tbl, fanwire.trigger_argument(t.tgargs, 0) AS channel,
           nullif(fanwire.trigger_argument(t.tgargs, 1), '')::text[] AS columns,
           t.tgname AS name, (t.tgtype & 1) = 1 AS for_rows,
           nullif(fanwire.trigger_argument(t.tgargs, 2), '')::text[] AS keys
    FROM pg_catalog.pg_trigger t
    WHERE t.tgfoid = 'fanwire.on_change'::regproc
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                      WHERE d.classid = 'pg_catalog.pg_trigger'::regclass AND d.objid = t.oid
                        AND d.deptype = 'P');

CREATE OR REPLACE VIEW fanwire.watched AS
    SELECT tbl, channel, columns FROM fanwire.watch_triggers WHERE for_rows;
COMMENT ON VIEW fanwire.watched IS
    'What fanwire_watch() has set up: a row for each table and template';

-- Ends the watch with this template, or (null) all of the table; whether there was one.
CREATE OR REPLACE FUNCTION fanwire.drop_triggers(tbl regclass, channel text)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    trigger_name name;
    found_one boolean := false;
BEGIN
    FOR trigger_name IN SELECT w.name FROM fanwire.watch_triggers w WHERE w.tbl = drop_triggers.tbl
        AND (drop_triggers.channel IS NULL OR w.channel = drop_triggers.channel)
    LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, tbl);
        found_one := true;
    END LOOP;
    RETURN found_one;
END
$fanwire$;

DROP FUNCTION IF EXISTS public.fanwire_unwatch(regclass); -- an earlier form
CREATE OR REPLACE FUNCTION public.fanwire_unwatch(tbl regclass, channel text DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    IF NOT fanwire.drop_triggers(tbl, channel) THEN
        RAISE NOTICE 'fanwire_unwatch: % is not watched%', tbl,
            coalesce(' as ' || to_json(channel)::text, '');
    END IF;
END
$fanwire$;

-- The triggers' names are made of the template, so that each template has its own.
CREATE OR REPLACE FUNCTION public.fanwire_watch(
    tbl regclass, channel text, columns text[] DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    name text := fanwire.check_watch(tbl, channel, columns);
    keys text[];
    arguments text;
BEGIN
    SELECT array_agg(a.attname::text ORDER BY a.attnum) INTO keys
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = tbl AND i.indisprimary;

    PERFORM fanwire.drop_triggers(tbl, channel);
    arguments := format('%L, %L, %L, %L, %L', channel, coalesce(columns::text, ''),
                        coalesce(keys::text, ''), name,
                        CASE WHEN fanwire.is_plain(tbl) THEN 'plain' ELSE '' END);
    EXECUTE format('CREATE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s '
                   'FOR EACH ROW EXECUTE FUNCTION fanwire.on_change(%s)',
                   'fanwire_row_' || md5(channel), tbl, arguments);
    EXECUTE format('CREATE TRIGGER %I AFTER TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION fanwire.on_change(%s)',
                   'fanwire_truncate_' || md5(channel), tbl, arguments);
END
$fanwire$;

-- Triggers that an earlier form of this SQL made, one template for each table, get their new names.
DO $fanwire$
DECLARE
    old record;
BEGIN
    FOR old IN SELECT * FROM fanwire.watch_triggers WHERE name = 'fanwire_row' LOOP
        BEGIN
            PERFORM public.fanwire_watch(old.tbl, old.channel, old.columns);
        EXCEPTION WHEN insufficient_privilege OR undefined_column THEN
            RAISE WARNING 'the triggers of % stay as they are: %', old.tbl, SQLERRM
                USING HINT = 'Call fanwire_watch() for this table as its owner.';
        END;
    END LOOP;
END
$fanwire$;

COMMENT ON FUNCTION public.fanwire_watch(regclass, text, text[]) IS
    'Publishes each change of the table''s rows to the channel that the template makes of the row';
COMMENT ON FUNCTION public.fanwire_unwatch(regclass, text) IS
    'Ends what fanwire_watch() began: one template of the table, or all';
GRANT SELECT ON fanwire.watch_triggers, fanwire.watched TO PUBLIC;
GRANT EXECUTE ON FUNCTION fanwire.channel_of(text, jsonb), fanwire.columns_of(jsonb, text[]),
    fanwire.is_channel(text), fanwire.is_plain(regclass),
    fanwire.columns_singly(anyelement, text[]),
    fanwire.warn_of_columns(regclass, text, jsonb, text[]), fanwire.on_change(),
    fanwire.trigger_argument(bytea, integer), fanwire.drop_triggers(regclass, text),
    public.fanwire_watch(regclass, text, text[]), public.fanwire_unwatch(regclass, text) TO PUBLIC;

-- What was watched in wal mode goes on by triggers.
DO $fanwire$
DECLARE
    other record;
    why text;
BEGIN
    IF to_regclass('fanwire.watching') IS NULL THEN
        RETURN;
    END IF;
    FOR other IN EXECUTE 'SELECT r.prrelid::regclass AS tbl, w.channel, w.columns '
        'FROM fanwire.watching w JOIN pg_catalog.pg_publication_rel r '
        'ON r.prrelid = coalesce((to_jsonb(w) ->> ''tbl'')::regclass, w.relation) ' -- an earlier form
        'JOIN pg_catalog.pg_publication p ON p.oid = r.prpubid AND p.pubname = ''fanwire'' '
        'WHERE w.ended IS NULL ORDER BY w.id'
    LOOP
        why := fanwire.lacking_columns(other.tbl, other.channel, other.columns);
        IF why IS NOT NULL THEN
            RAISE EXCEPTION '% is watched as %, and no longer has the column %', other.tbl,
                to_json(other.channel), why
                USING ERRCODE = 'undefined_column',
                      HINT = format('End it, then install again: SELECT fanwire_unwatch(%L, %L);',
                                    other.tbl, other.channel);
        END IF;
        PERFORM public.fanwire_watch(other.tbl, other.channel, other.columns);
    END LOOP;
    DROP PUBLICATION IF EXISTS fanwire;
    IF to_regprocedure('fanwire.restore_identities()') IS NOT NULL THEN
        PERFORM fanwire.restore_identities();
    END IF;
    DROP TABLE fanwire.watching;
    DROP TABLE IF EXISTS fanwire.identities;
    DROP VIEW IF EXISTS fanwire.published;
    DROP FUNCTION IF EXISTS fanwire.on_partition() CASCADE; -- with its event trigger
    DROP FUNCTION IF EXISTS fanwire.renumber(), fanwire.set_identity(regclass, "char"),
        fanwire.make_identity(regclass, text), fanwire.unfit_partitions(regclass),
        fanwire.change_identity(regclass, text), fanwire.fit_partitions(regclass),
        fanwire.restore_identities(), fanwire.why_not_logged(regclass, text, text[]);
END
$fanwire$;
