import httpx


async def test_the_process_lives(client: httpx.AsyncClient) -> None:
    response = await client.get("/healthz")
    assert response.status_code == 200
    assert response.json() == {"status": "ok"}


async def test_readiness_names_each_part(client: httpx.AsyncClient) -> None:
    response = await client.get("/readyz")
    assert response.status_code == 200, response.text
    assert response.json() == {"status": "ready", "database": "ok", "broker": "ok", "storage": "ok"}


async def test_metrics_count_requests_by_route_template(client: httpx.AsyncClient) -> None:
    await client.get("/v1/keys/key_1")
    text = (await client.get("/metrics")).text
    assert 'pressroom_http_requests_total{method="GET",route="/v1/keys/{key_id}",status="404"}' in text
    assert 'pressroom_jobs{status="queued"} 0.0' in text
