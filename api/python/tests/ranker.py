"""What a ranker does with candidates: 100 users in one batch, with a deadline, and each kind of error."""

import sys

import tandem


def rank(address: str) -> tuple[int, int]:
    ranked = popular = 0
    with tandem.Client(address, deadline=10.0) as client:
        batch = [tandem.RetrieveRequest(user_id=f"user-{i:07d}", k=10) for i in range(10, 110)]
        try:
            results = client.batch_retrieve(batch)
        except tandem.TandemError as e:
            sys.exit(f"no candidates, temporary: {e.temporary}, retry after {e.retry_after} s: {e}")
        for request, result in zip(batch, results, strict=True):
            if result.response is not None:
                ranked += len(result.response.candidates) == 10
            elif result.error.reason is tandem.Reason.ENTITY_UNKNOWN:  # a new user
                popular += 1
            elif result.error.mistake:  # ours: the fields say where
                sys.exit(f"{request.user_id}: {result.error.fields}: {result.error}")
            else:  # temporary, or a failure of the server: this user is for the next time
                print(request.user_id, result.error.reason.value)
    return ranked, popular


if __name__ == "__main__":
    print(rank(sys.argv[1]))
