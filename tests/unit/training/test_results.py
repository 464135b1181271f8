"""The file of validation results."""

from cod_jax.training.results import RESULTS_FILE, append_result, best_result, keep_results, read_results


def test_results_come_back_in_the_order_of_steps(tmp_path):
    assert read_results(tmp_path) == []
    assert best_result(tmp_path) is None
    keep_results(tmp_path, 0)
    assert not (tmp_path / RESULTS_FILE).exists()
    for step, loss in ((5, 2.0), (10, 1.0), (15, float("nan")), (20, 1.0)):
        append_result(tmp_path, step, {"loss": loss})
    with (tmp_path / RESULTS_FILE).open("a") as file:
        file.write('[1]\n{"loss": 0.1}\n{"step": 25, "lo')  # the disk was full
    assert [result["step"] for result in read_results(tmp_path)] == [5, 10, 15, 20]
    assert best_result(tmp_path) == {"step": 20, "loss": 1.0}


def test_a_run_that_starts_again_drops_what_comes_after(tmp_path):
    for step in (5, 10, 15):
        append_result(tmp_path, step, {"psnr_one_step": 20.0})
    keep_results(tmp_path, 10)
    append_result(tmp_path, 12, {"psnr_one_step": 21.0})
    assert best_result(tmp_path) == {"step": 12, "psnr_one_step": 21.0}
    assert [result["step"] for result in read_results(tmp_path)] == [5, 10, 12]
