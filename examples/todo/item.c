/* An item as JSON. */
#include "item.h"

#include <errno.h>

/* SQLite takes what is not UTF-8 for text, too: such a title must not spoil the list. */
static json_t *title_json(const char *title)
{
    json_t *json = json_string(title);
    return json ? json : json_string("\ufffd");
}

json_t *item_json(const struct item *item)
{
    return json_pack("{s:s, s:o, s:b, s:I}", "id", item->id, "title", title_json(item->title),
                     "completed", item->completed, "created", (json_int_t)item->created);
}

json_t *item_event(const struct item *item)
{
    return json_pack("{s:s, s:s, s:{s:s}, s:o}", "op", "insert", "table", "todos", "key", "id",
                     item->id, "row", item_json(item));
}

int item_append(const struct item *item, void *arg)
{
    return json_array_append_new(arg, item_json(item)) == 0 ? 0 : -ENOMEM;
}

int item_keep(const struct item *item, void *arg)
{
    json_t **ret = arg;
    json_decref(*ret); /* of an earlier try */
    *ret = item_json(item);
    return *ret ? 0 : -ENOMEM;
}
