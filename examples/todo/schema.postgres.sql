-- The to-do items; fanwire_watch() tells their changes to the channels "todos" and "todos:ID". Any
-- program may write here: INSERT INTO todos (title) VALUES ('tea');

CREATE TABLE IF NOT EXISTS todos (
    id        text PRIMARY KEY DEFAULT gen_random_uuid()::text CHECK (id ~ '^[A-Za-z0-9_-]{1,64}$'),
    title     text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 10000),
    completed boolean NOT NULL DEFAULT false,
    created   bigint NOT NULL  -- milliseconds since 1970
              DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
);

CREATE INDEX IF NOT EXISTS todos_in_order ON todos (created, id COLLATE "C");

SELECT fanwire_watch('todos', 'todos');
SELECT fanwire_watch('todos', 'todos:{id}');
