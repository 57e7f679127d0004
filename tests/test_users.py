"""People, roles and any object by its ID, through the API."""

from db.ids import Kind, global_id, new_id

CREATE = """
mutation ($input: CreateUserInput!) {
  createUser(input: $input) {
    user { id username email status revision }
    errors { __typename code path ... on AlreadyExistsError { existing { ... on User { username } } } }
  }
}
"""
COUNT = "{ users { totalCount } }"


async def role_id(execute, admin, name):
    found = await execute("query ($name: String) { role(name: $name) { id } }", principal=admin, name=name)
    return found["data"]["role"]["id"]


async def test_makes_an_account_that_can_sign_in_and_holds_its_role(execute, admin):
    role = await role_id(execute, admin, "Data Scientist")
    account = {
        "username": "grace",
        "email": "grace@example.com",
        "password": "several words of mine",
        "roleIds": [role],
    }

    made = await execute(CREATE, principal=admin, input=account)
    signed_in = await execute(
        'mutation { login(input: {username: "grace", password: "several words of mine"}) '
        "{ viewer { can(permission: RUN_CREATE) { allowed } } errors { code } } }"
    )

    user = made["data"]["createUser"]["user"]
    assert (user["username"], user["status"], user["revision"]) == ("grace", "ACTIVE", 1)
    assert signed_in["data"]["login"] == {"viewer": {"can": {"allowed": True}}, "errors": []}


async def test_refuses_what_is_wrong_all_at_once_and_makes_nobody(execute, admin):
    made = await execute(
        CREATE,
        principal=admin,
        input={
            "username": "grace",
            "email": "nowhere",
            "password": "password1234",
            "roleIds": [global_id(Kind.ROLE, new_id())],
        },
    )

    assert made["data"]["createUser"]["user"] is None
    assert [(error["code"], error["path"]) for error in made["data"]["createUser"]["errors"]] == [
        ("INVALID", ["input", "email"]),
        ("WEAK_PASSWORD", ["input", "password"]),
        ("NOT_FOUND", ["input", "roleIds", "0"]),
    ]
    assert (await execute(COUNT, principal=admin))["data"]["users"]["totalCount"] == 1


async def test_a_taken_name_says_whose_it_is(execute, admin):
    made = await execute(CREATE, principal=admin, input={"username": "ada", "email": "other@example.com"})

    assert made["data"]["createUser"]["errors"] == [
        {
            "__typename": "AlreadyExistsError",
            "code": "ALREADY_EXISTS",
            "path": ["input", "username"],
            "existing": {"username": "ada"},
        }
    ]


async def test_a_scientist_may_neither_make_nor_list_people(execute, scientist, admin):
    made = await execute(CREATE, principal=scientist, input={"username": "grace", "email": "grace@example.com"})
    listed = await execute(COUNT, principal=scientist)

    assert [made["data"], listed["data"]] == [{"createUser": None}, {"users": None}]
    assert [answer["errors"][0]["extensions"]["code"] for answer in (made, listed)] == ["FORBIDDEN", "FORBIDDEN"]
    assert (await execute(COUNT, principal=admin))["data"]["users"]["totalCount"] == 2


async def test_filters_orders_and_searches_people(execute, admin, caller):
    for name in ("bob", "carol", "dave"):
        await caller("Viewer", username=name)

    found = await execute(
        """{
          starts: users(filter: {username: {startsWith: "C"}}) { nodes { username } }
          some: users(filter: {username: {in: ["bob", "dave"]}}, orderBy: {field: USERNAME, direction: DESC})
            { nodes { username } }
          search: users(filter: {search: "AROL@"}) { nodes { username } }
          none: users(filter: {statuses: [SUSPENDED]}) { totalCount }
        }""",
        principal=admin,
    )

    assert found["data"] == {
        "starts": {"nodes": [{"username": "carol"}]},
        "some": {"nodes": [{"username": "dave"}, {"username": "bob"}]},
        "search": {"nodes": [{"username": "carol"}]},
        "none": {"totalCount": 0},
    }


async def test_an_object_out_of_sight_reads_as_if_it_were_not_there(execute, admin, caller, project):
    stranger = await caller(None, username="stranger")
    ids = [
        global_id(Kind.PROJECT, project.id),
        global_id(Kind.USER, admin.user_id),
        global_id(Kind.USER, stranger.user_id),
        global_id(Kind.PROJECT, new_id()),
        global_id(Kind.DATASET, project.id),
        "nonsense",
    ]
    query = "query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }"

    seen = await execute(query, principal=admin, ids=ids)
    unseen = await execute(query, principal=stranger, ids=ids)

    assert [node and node["__typename"] for node in seen["data"]["nodes"]] == [
        "Project",
        "User",
        "User",
        None,
        None,
        None,
    ]
    assert [node and node["id"] for node in unseen["data"]["nodes"]] == [None, None, ids[2], None, None, None]


async def test_more_ids_than_allowed_are_refused(execute, admin):
    asked = await execute("query ($ids: [ID!]!) { nodes(ids: $ids) { id } }", principal=admin, ids=["x"] * 101)

    assert asked["errors"][0]["message"] == "`ids` has at most 100 items."
    assert asked["errors"][0]["extensions"] == {"code": "BAD_REQUEST", "userCode": "OUT_OF_RANGE"}
