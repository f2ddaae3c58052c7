"""Keep sensitivities."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "c7a4f1d20b36"
down_revision = "b1c5e0a72f94"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sensitivities",
        sa.Column("project_id", sa.String(length=40), nullable=False),
        sa.Column("model_sha256", sa.String(length=64), nullable=False),
        sa.Column("measurement", sa.String(length=64), nullable=False),
        sa.Column("content", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_sensitivities_project_id_projects"),
        sa.PrimaryKeyConstraint("project_id", "model_sha256", "measurement", name="pk_sensitivities"),
    )


def downgrade() -> None:
    op.drop_table("sensitivities")
