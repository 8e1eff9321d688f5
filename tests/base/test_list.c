/* Intrusive lists: order, removal from anywhere, nodes that are not linked. */
#include "list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct item {
    int n;
    struct list node;
};

static int pop(struct list *head)
{
    struct list *node = list_pop(head);
    return node ? list_entry(node, struct item, node)->n : -1;
}

static void first_in_first_out(void **state)
{
    struct list head;
    struct item items[] = { { .n = 1 }, { .n = 2 }, { .n = 3 } };
    list_init(&head);
    assert_true(list_empty(&head));
    for (size_t i = 0; i < 3; i++)
        list_push(&head, &items[i].node);
    assert_false(list_empty(&head));
    assert_int_equal(pop(&head), 1);
    assert_int_equal(pop(&head), 2);
    assert_int_equal(pop(&head), 3);
    assert_int_equal(pop(&head), -1);
}

static void removal_is_idempotent_also_of_zeroed_nodes(void **state)
{
    struct list head;
    struct item a = { .n = 1 }, b = { .n = 2 }, never = { .n = 3 };
    list_init(&head);
    list_push(&head, &a.node);
    list_push(&head, &b.node);
    assert_true(list_linked(&a.node));
    list_remove(&a.node);
    list_remove(&a.node);
    assert_false(list_linked(&a.node));
    assert_false(list_linked(&never.node));
    list_remove(&never.node);
    assert_int_equal(pop(&head), 2);
    assert_true(list_empty(&head));
}

static void inserts_before(void **state)
{
    struct list head;
    struct item a = { .n = 1 }, b = { .n = 2 };
    list_init(&head);
    list_push(&head, &b.node);
    list_insert_before(&a.node, &b.node);
    assert_int_equal(pop(&head), 1);
    assert_int_equal(pop(&head), 2);
}

static void all_move_to_the_back(void **state)
{
    struct list to, from;
    struct item items[] = { { .n = 1 }, { .n = 2 }, { .n = 3 } };
    list_init(&to);
    list_init(&from);
    list_move_all(&to, &from); /* nothing to nothing */
    assert_true(list_empty(&to));
    list_push(&from, &items[1].node);
    list_push(&from, &items[2].node);
    list_push(&to, &items[0].node);
    list_move_all(&to, &from);
    assert_true(list_empty(&from));
    list_move_all(&to, &from);
    for (int i = 1; i <= 3; i++)
        assert_int_equal(pop(&to), i);
    assert_int_equal(pop(&to), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_in_first_out),
        cmocka_unit_test(removal_is_idempotent_also_of_zeroed_nodes),
        cmocka_unit_test(inserts_before),
        cmocka_unit_test(all_move_to_the_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
