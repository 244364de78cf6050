"""What of GitHub's GraphQL schema a task may ask for: the parts that lead to nothing beyond its repositories.

A table of types, each with its plain fields and with those that lead on. What is not here is refused, so a
field that GitHub adds tomorrow opens nothing. `Foreign` is a repository that is only named: what a granted
one was forked from, or where a pull request comes from.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Type:
    """plain: fields without a selection; objects: field to type, `[X]` for a connection of X; narrows: the
    types that a fragment on it may name, to what they are here; identified: its `id` may be named later."""

    plain: frozenset[str]
    objects: dict[str, str] = attrs.field(factory=dict)
    narrows: dict[str, str] = attrs.field(factory=dict)
    identified: bool = False


def _type(plain: str, identified: bool = False, on: dict[str, str] | None = None, **objects: str) -> Type:
    return Type(frozenset(plain.split()), objects, on or {}, identified)


_ACTORS = dict.fromkeys(("Actor", "User", "Bot", "Mannequin", "Organization", "Team"), "Actor")
_WORK = {"Issue": "Issue", "PullRequest": "PullRequest"}

_DISCUSSED = {
    "author": "Actor",
    "assignees": "[Actor]",
    "labels": "[Label]",
    "milestone": "Milestone",
    "comments": "[Comment]",
    "reactionGroups": "Reactions",
    # Boards span repositories: of them only names are told.
    "projectCards": "[Card]",
    "projectItems": "[Item]",
}
_DISCUSSED_PLAIN = (
    "id number title body bodyText state url createdAt updatedAt closedAt closed locked activeLockReason "
    "isPinned stateReason authorAssociation viewerDidAuthor "
)

TYPES = {
    "Query": _type(
        "",
        viewer="Viewer",
        repository="Repository",
        node="Work",
        search="[Work]",
        __type="Described",
    ),
    "Viewer": _type("login id name"),
    "Described": _type("name", fields="Described", inputFields="Described", enumValues="Described"),
    "Work": _type("", on={**_WORK, "Repository": "Repository"}),
    "Actor": _type("login id name slug email url avatarUrl", on=_ACTORS, organization="Actor"),
    "Repository": _type(
        "id name nameWithOwner description url sshUrl homepageUrl openGraphImageUrl createdAt pushedAt "
        "updatedAt isPrivate isFork isArchived isEmpty isMirror isTemplate isInOrganization "
        "isBlankIssuesEnabled hasIssuesEnabled hasProjectsEnabled hasWikiEnabled hasDiscussionsEnabled "
        "mergeCommitAllowed "
        "squashMergeAllowed rebaseMergeAllowed deleteBranchOnMerge autoMergeAllowed forkCount stargazerCount "
        "diskUsage viewerPermission viewerCanAdminister viewerDefaultMergeMethod viewerDefaultCommitEmail "
        "viewerSubscription viewerHasStarred visibility isSecurityPolicyEnabled securityPolicyUrl mirrorUrl "
        "isUserConfigurationRepository usesCustomOpenGraphImage",
        identified=True,
        on={"Repository": "Repository"},
        owner="Actor",
        parent="Foreign",
        templateRepository="Foreign",
        defaultBranchRef="Ref",
        ref="Ref",
        issue="Issue",
        issues="[Issue]",
        issueOrPullRequest="Work",
        pullRequest="PullRequest",
        pullRequests="[PullRequest]",
        labels="[Label]",
        milestone="Milestone",
        milestones="[Milestone]",
        assignableUsers="[Actor]",
        mentionableUsers="[Actor]",
        languages="[Language]",
        primaryLanguage="Language",
        licenseInfo="Licence",
        codeOfConduct="Licence",
        contactLinks="Template",
        fundingLinks="Template",
        projects="[Named]",
        repositoryTopics="[Topic]",
        issueTemplates="Template",
        pullRequestTemplates="Template",
        latestRelease="Release",
        releases="[Release]",
        watchers="[Actor]",
    ),
    "Foreign": _type(
        "id name nameWithOwner description url isPrivate hasIssuesEnabled hasWikiEnabled viewerPermission",
        on={"Repository": "Foreign"},
        owner="Actor",
        defaultBranchRef="Ref",
    ),
    "Ref": _type("id name prefix", target="Commit", branchProtectionRule="Protection"),
    "Protection": _type(
        "requiresStrictStatusChecks requiredApprovingReviewCount requiresApprovingReviews "
        "requiresStatusChecks"
    ),
    "Issue": _type(_DISCUSSED_PLAIN, identified=True, on={"Issue": "Issue"}, **_DISCUSSED),
    "PullRequest": _type(
        _DISCUSSED_PLAIN
        + "additions deletions changedFiles baseRefName baseRefOid headRefName headRefOid isCrossRepository "
        "isDraft maintainerCanModify mergeable mergedAt merged mergeStateStatus reviewDecision permalink",
        identified=True,
        on={"PullRequest": "PullRequest"},
        **_DISCUSSED,
        baseRef="Ref",
        commits="[PullRequestCommit]",
        files="[File]",
        headRepository="Foreign",
        headRepositoryOwner="Actor",
        latestReviews="[Review]",
        mergeCommit="Commit",
        mergedBy="Actor",
        potentialMergeCommit="Commit",
        reviewRequests="[ReviewRequest]",
        reviews="[Review]",
        # gh gives `commits` this name; it is an alias there and a field in newer schemas.
        statusCheckRollup="Rollup",
    ),
    "PullRequestCommit": _type("", commit="Commit"),
    "Commit": _type(
        "oid messageHeadline messageBody committedDate authoredDate url",
        on={"Commit": "Commit"},
        author="Author",
        authors="[Author]",
        statusCheckRollup="Rollup",
    ),
    "Author": _type("name email", user="Actor"),
    "Rollup": _type("state", contexts="[Check]"),
    "Check": _type(
        "name context state status conclusion targetUrl detailsUrl createdAt startedAt completedAt "
        "isRequired description title",
        on={"StatusContext": "Check", "CheckRun": "Check"},
        checkSuite="Suite",
    ),
    "Suite": _type("status conclusion", workflowRun="Run"),
    "Run": _type("event", workflow="Named"),
    "Named": _type("name id title number body resourcePath"),
    "Topic": _type("", topic="Named"),
    "Label": _type("id name description color isDefault url createdAt updatedAt"),
    "Milestone": _type("id number title description dueOn state url"),
    "Comment": _type(
        "id body url createdAt updatedAt authorAssociation includesCreatedEdit isMinimized minimizedReason "
        "viewerDidAuthor",
        identified=True,
        on={"IssueComment": "Comment"},
        author="Actor",
        reactionGroups="Reactions",
    ),
    "Review": _type(
        "id body state submittedAt url authorAssociation viewerDidAuthor",
        identified=True,
        author="Actor",
        commit="Commit",
        comments="[Comment]",
        reactionGroups="Reactions",
    ),
    "ReviewRequest": _type("", requestedReviewer="Actor"),
    "Reactions": _type("content", users="[Actor]"),
    "Card": _type("", project="Named", column="Named"),
    "Item": _type("id", project="Named"),
    "File": _type("path additions deletions changeType viewerViewedState"),
    "Language": _type("name color"),
    "Licence": _type("key name nickname spdxId url"),
    "Template": _type("name title about body filename url platform"),
    "Release": _type("name tagName isDraft isPrerelease isLatest publishedAt createdAt url description"),
    "Changed": _type(
        "clientMutationId",
        pullRequest="PullRequest",
        issue="Issue",
        subject="Work",
        commentEdge="CommentEdge",
        issueComment="Comment",
        pullRequestReview="Review",
    ),
    "CommentEdge": _type("", node="Comment"),
}

# What surrounds the items of a connection.
PAGE = _type("hasNextPage hasPreviousPage startCursor endCursor")


@attrs.frozen
class Mutation:
    """target: the input's field that names what is changed; others: further fields that are taken; named:
    those of them that name something, which must be known as well; values: fields that take only these."""

    target: str
    others: frozenset[str]
    named: frozenset[str]
    values: dict[str, frozenset[str]]


def _mutation(target: str, others: str = "", named: str = "", **values: str) -> Mutation:
    plain = frozenset({*others.split(), *named.split(), *values, "clientMutationId"})
    return Mutation(
        target,
        plain,
        frozenset(named.split()),
        {name: frozenset(text.split()) for name, text in values.items()},
    )


# Merging and approving are left to people, and so is whatever cannot be undone.
MUTATIONS = {
    "createPullRequest": _mutation(
        "repositoryId", "title body draft baseRefName headRefName maintainerCanModify", "headRepositoryId"
    ),
    "updatePullRequest": _mutation(
        "pullRequestId", "title body state baseRefName maintainerCanModify assigneeIds labelIds milestoneId"
    ),
    "closePullRequest": _mutation("pullRequestId"),
    "reopenPullRequest": _mutation("pullRequestId"),
    "markPullRequestReadyForReview": _mutation("pullRequestId"),
    "convertPullRequestToDraft": _mutation("pullRequestId"),
    "requestReviews": _mutation("pullRequestId", "userIds teamIds union"),
    "addPullRequestReview": _mutation("pullRequestId", "body", event="COMMENT REQUEST_CHANGES"),
    "createIssue": _mutation("repositoryId", "title body assigneeIds labelIds milestoneId issueTemplate"),
    "updateIssue": _mutation("id", "title body state assigneeIds labelIds milestoneId"),
    "closeIssue": _mutation("issueId", "stateReason"),
    "reopenIssue": _mutation("issueId"),
    "addComment": _mutation("subjectId", "body"),
    "updateIssueComment": _mutation("id", "body"),
    "addLabelsToLabelable": _mutation("labelableId", "labelIds"),
    "removeLabelsFromLabelable": _mutation("labelableId", "labelIds"),
    "addAssigneesToAssignable": _mutation("assignableId", "assigneeIds"),
    "removeAssigneesFromAssignable": _mutation("assignableId", "assigneeIds"),
}
