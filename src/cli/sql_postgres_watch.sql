
-- Row changes: SELECT fanwire_watch('todos', 'todos:{list_id}');
--
-- From then on each INSERT, UPDATE and DELETE of the table publishes, when its transaction commits,
--   {"op":"update","table":"public.todos","key":{"id":7},"row":{…},"old":{…},"tx":"7413"}
-- to the channel that the template makes of the row: {column} stands for the column's value. An
-- update that moves a row to another channel is told to both. An event that would be too large for
-- NOTIFY carries the key and "partial":true instead; the writer's statement never fails for it.

CREATE OR REPLACE FUNCTION fanwire.channel_of(template text, changed jsonb)
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
    SELECT CASE WHEN bool_and(part[2] IS NULL OR changed ->> part[2] IS NOT NULL)
                THEN string_agg(coalesce(part[1], changed ->> part[2]), '' ORDER BY place) END
    FROM regexp_matches(template, '([^{}]+)|\{([^{}]+)\}', 'g') WITH ORDINALITY AS p(part, place)
$fanwire$;
COMMENT ON FUNCTION fanwire.channel_of(text, jsonb) IS
    'The channel of a row by its template; null where a column that it names is null';

CREATE OR REPLACE FUNCTION fanwire.columns_of(changed jsonb, columns text[])
RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $fanwire$
    SELECT CASE WHEN columns IS NULL THEN changed
                ELSE (SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(changed) e
                      WHERE e.key = ANY (columns)) END
$fanwire$;

CREATE OR REPLACE FUNCTION fanwire.publish_row(channel text, event jsonb)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    room integer := 7999 - 2 - octet_length(json_build_object('channel', channel)::text);
    identity jsonb := event - 'row' - 'old' || '{"partial": true}';
BEGIN
    IF octet_length(channel) NOT BETWEEN 1 AND 255 OR left(channel, 9) = '$fanwire/'
       OR channel COLLATE "C" ~ E'[\\x01-\\x1f\\x7f]' THEN
        RAISE WARNING 'fanwire_watch: a change of % has no valid channel and is not published: %',
            event ->> 'table', left(to_json(channel)::text, 300);
    ELSIF octet_length(event::text) <= room THEN
        PERFORM public.fanwire_publish(channel, event::text);
    ELSIF octet_length(identity::text) <= room THEN
        PERFORM public.fanwire_publish(channel, identity::text);
    ELSE
        PERFORM public.fanwire_publish(channel, (identity - 'key')::text);
    END IF;
END
$fanwire$;

-- Arguments: template, columns, key columns (both as text[]; '' = none), the table's name.
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
    new_row jsonb;
    old_row jsonb;
    new_channel text;
    old_channel text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        IF template !~ '\{' THEN
            PERFORM fanwire.publish_row(template, event);
        END IF;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        new_row := to_jsonb(NEW);
        new_channel := fanwire.channel_of(template, new_row);
        event := event || jsonb_build_object('row', fanwire.columns_of(new_row, columns));
    END IF;
    IF TG_OP <> 'INSERT' THEN
        old_row := to_jsonb(OLD);
        old_channel := fanwire.channel_of(template, old_row);
        event := event || jsonb_build_object('old', fanwire.columns_of(old_row, columns));
    END IF;
    IF keys IS NOT NULL THEN
        event := event || jsonb_build_object(
            'key', fanwire.columns_of(coalesce(new_row, old_row), keys));
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

CREATE OR REPLACE FUNCTION public.fanwire_unwatch(tbl regclass)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
BEGIN
    EXECUTE format('DROP TRIGGER IF EXISTS fanwire_row ON %s', tbl);
    EXECUTE format('DROP TRIGGER IF EXISTS fanwire_truncate ON %s', tbl);
END
$fanwire$;

CREATE OR REPLACE FUNCTION public.fanwire_watch(
    tbl regclass, channel text, columns text[] DEFAULT NULL)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $fanwire$
DECLARE
    keys text[];
    name text;
    missing text;
    arguments text;
BEGIN
    SELECT n.nspname || '.' || c.relname INTO name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = tbl AND c.relkind IN ('r', 'p');
    IF name IS NULL THEN
        RAISE EXCEPTION 'fanwire_watch: % is no table', tbl
            USING ERRCODE = 'wrong_object_type';
    ELSIF channel IS NULL OR channel = '' OR regexp_replace(channel, '\{[^{}]+\}', '', 'g') ~ '[{}]' THEN
        RAISE EXCEPTION 'fanwire_watch: no channel template: %', coalesce(to_json(channel)::text, 'null')
            USING ERRCODE = 'invalid_parameter_value',
                  HINT = 'Write a channel name with {column} for values of the row: todos:{list_id}';
    END IF;
    SELECT string_agg(wanted.name, ', ') INTO missing
    FROM (SELECT (regexp_matches(channel, '\{([^{}]+)\}', 'g'))[1] AS name
          UNION SELECT unnest(columns)) wanted
    WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = tbl AND a.attnum > 0
                      AND NOT a.attisdropped AND a.attname = wanted.name);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'fanwire_watch: % has no column %', name, missing
            USING ERRCODE = 'undefined_column';
    END IF;
    SELECT array_agg(a.attname::text ORDER BY a.attnum) INTO keys
    FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
    WHERE i.indrelid = tbl AND i.indisprimary;

    PERFORM public.fanwire_unwatch(tbl);
    arguments := format('%L, %L, %L, %L', channel, coalesce(columns::text, ''),
                        coalesce(keys::text, ''), name);
    EXECUTE format('CREATE TRIGGER fanwire_row AFTER INSERT OR UPDATE OR DELETE ON %s '
                   'FOR EACH ROW EXECUTE FUNCTION fanwire.on_change(%s)', tbl, arguments);
    EXECUTE format('CREATE TRIGGER fanwire_truncate AFTER TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION fanwire.on_change(%s)', tbl, arguments);
END
$fanwire$;

COMMENT ON FUNCTION public.fanwire_watch(regclass, text, text[]) IS
    'Publishes each change of the table''s rows to the channel that the template makes of the row';
COMMENT ON FUNCTION public.fanwire_unwatch(regclass) IS 'Ends what fanwire_watch() began';
GRANT EXECUTE ON FUNCTION fanwire.channel_of(text, jsonb), fanwire.columns_of(jsonb, text[]),
    fanwire.publish_row(text, jsonb), fanwire.on_change(),
    public.fanwire_watch(regclass, text, text[]), public.fanwire_unwatch(regclass) TO PUBLIC;
