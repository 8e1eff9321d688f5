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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_in_first_out),
        cmocka_unit_test(removal_is_idempotent_also_of_zeroed_nodes),
        cmocka_unit_test(inserts_before),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
